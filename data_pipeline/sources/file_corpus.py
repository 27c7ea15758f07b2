"""What all corpora of files share: which files, in which split, and what happens to a bad file or document."""

import abc
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import Field

from data_pipeline.archives.decompression import DAMAGE, ExpandsTooFar
from data_pipeline.config import BadInput
from data_pipeline.redaction import redact
from data_pipeline.sources.chosen_files import check_exists, chosen_files
from data_pipeline.sources.decoding import Found, InvalidUtf8, Nul, TextPolicy, decoded
from data_pipeline.sources.document import CorpusConfig, Document, Piece, Report, Span, Split, packed, split_of
from data_pipeline.sources.folder import Folder, LocalFolder, folder_at
from data_pipeline.sources.giants import parts_of
from data_pipeline.sources.own_files import OF_TEXT, check_apart

Patterns = list[Annotated[str, Field(min_length=1)]]

SkipOrStop = Literal["skip", "stop"]
Item = TypeVar("Item")


class FileCorpus(CorpusConfig):
    """Files below `directory`, chosen by name or glob; the order is that of the names, and within a file its own."""

    kind: str
    directory: str
    """A path, or an address that fsspec knows, such as s3://bucket/folder."""
    train: Patterns = Field(min_length=1)
    valid: Patterns = Field(default=[])
    test: Patterns = Field(default=[])
    held_out: float = Field(default=0.1, ge=0.0, lt=1.0)
    """Where no `valid` files are given: the share of the train documents, by hash of the id, that becomes "valid"."""
    invalid_utf8: InvalidUtf8 = "skip"
    nul: Nul = Field(default="keep", exclude_if=lambda value: value == "keep")
    damaged_file: SkipOrStop = Field(default="stop", exclude_if=lambda value: value == "stop")
    """What to do about a file that is cut off or not of its format: "skip" counts it, and leaves out all that comes
    after the damage."""
    max_document_bytes: int = Field(default=1 << 30, ge=1)
    """Longer documents are left out and counted; what is shorter is held in memory as a whole."""

    @abc.abstractmethod
    def found_in(self, folder: Folder, span: Span, report: Report) -> Iterator[Found]:
        """The documents of part of a file; ExpandsTooFar, OSError or one of `DAMAGE` where they cannot be read."""

    def spans_of(self, folder: Folder, name: str, size: int, piece_bytes: int) -> Iterator[Span]:
        """A file in parts of about `piece_bytes`, if it can be cut."""
        yield Span(name, 0, size, size)

    def located(self) -> Self:
        if "://" in self.directory:
            return self
        return self.model_copy(update={"directory": str(Path(self.directory).resolve())})

    def pieces(self, piece_bytes: int) -> list[Piece]:
        folder = folder_at(self.directory)
        pieces: list[Piece] = []
        for split, sizes in self._files(folder).items():
            spans = (span for name in sizes for span in self.spans_of(folder, name, sizes[name], piece_bytes))
            try:
                pieces += packed(None if split == "train" and self.splits_by_hash else split, spans, piece_bytes)
            except OSError as error:
                raise BadInput(
                    f"corpus.directory {folder.shown}: cannot be read ({redact(str(error))}); see that it is there"
                ) from None
        return pieces

    def read(self, piece: Piece, report: Report) -> Iterator[tuple[Split, Document]]:
        folder, policy = folder_at(self.directory), TextPolicy(self.invalid_utf8, self.nul)
        for span in piece.spans:
            report.file, report.start = span.name, None
            if span.stop == 0:
                report.add("empty" if self.file_is_document else "empty_file")
                continue
            if span.document is not None:
                parts = parts_of(folder, span, self.max_document_bytes, policy, report)
                split = piece.split or split_of(self.identity_of(span.name, span.document[0]), self.held_out)
                yield from ((split, part) for part in self._readable(folder, span, report, parts))
                continue
            for found in self._readable(folder, span, report, self.found_in(folder, span, report)):
                document = decoded(found, policy, report)
                if document is not None:
                    yield piece.split or split_of(document.id, self.held_out), document

    @property
    def file_is_document(self) -> bool:
        """Whether a file is one document."""
        return False

    @property
    def splits_by_hash(self) -> bool:
        """Whether some of the train documents become "valid"."""
        return not self.valid and self.held_out > 0

    def identity_of(self, name: str, offset: int) -> str:
        """The id of the document that starts there."""
        return f"{name}:{offset}"

    def stamp(self, piece: Piece) -> str | None:
        folder = folder_at(self.directory)
        stamps = [folder.stamp(name) for name in dict.fromkeys(span.name for span in piece.spans)]
        return None if None in stamps else " ".join(map(str, stamps))

    def check_apart(self, directory: Path) -> None:
        folder = folder_at(self.directory)
        if isinstance(folder, LocalFolder):
            patterns = {"train": self.train, "valid": self.valid, "test": self.test}
            check_apart(directory, folder.base, patterns, OF_TEXT)

    def _readable(self, folder: Folder, span: Span, report: Report, found: Iterator[Item]) -> Iterator[Item]:
        """What can be read of a span; the rest is counted, or BadInput."""
        file = f"{folder.shown}/{span.name}"
        try:
            yield from found
        except ExpandsTooFar:
            report.add("expands_too_far")
        except DAMAGE as error:
            if self.damaged_file == "stop":
                raise BadInput(
                    f"{file}: cannot be read ({error}); repair the file, leave it out of the corpus, or set "
                    "corpus.damaged_file to skip"
                ) from error
            report.add("damaged_file")
        except OSError as error:
            raise BadInput(f"{file}: cannot be reached ({redact(str(error))}); see that it is there") from None

    def _files(self, folder: Folder) -> dict[Split, dict[str, int]]:
        """The size of each split's files, by name and in order."""
        check_exists(self.directory, folder)
        patterns: dict[Split, Patterns] = {"train": self.train, "valid": self.valid, "test": self.test}
        files = {split: chosen_files(folder, split, named, example="**/*.txt") for split, named in patterns.items()}
        owner: dict[str, Split] = {}
        for split, names in files.items():
            for name in names:
                if owner.setdefault(name, split) != split:
                    raise BadInput(
                        f"corpus.{split}: {name} is in corpus.{owner[name]} too; name each file in one split only"
                    )
        return files
