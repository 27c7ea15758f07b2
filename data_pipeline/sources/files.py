"""Text files of the user's own: plain, .gz or .zst; a document is a whole file, a line, or a paragraph."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field

from data_pipeline.config import BadInput
from data_pipeline.sources.bytes_of_files import DocumentUnit, documents_in, is_compressed
from data_pipeline.sources.document import (
    CorpusConfig,
    Document,
    InvalidUtf8,
    Piece,
    Report,
    Span,
    Split,
    decoded,
    packed,
    split_of,
)

FEWEST_FILES = 10
"""With fewer whole-file documents than this, a held-out share by hash is likely to be empty."""

Patterns = list[Annotated[str, Field(min_length=1)]]


class FilesConfig(CorpusConfig):
    """Files below `directory`, chosen by path or glob; a document's id is its path, with its byte offset if a part.

    The order is that of the patterns' files by path, and within a file its own.
    """

    kind: Literal["files"]
    directory: str
    train: Patterns = Field(min_length=1)
    valid: Patterns = Field(default=[])
    test: Patterns = Field(default=[])
    document: DocumentUnit
    """A whole file, a line, or a paragraph (ended by lines that are empty but for white space)."""
    held_out: float = Field(default=0.1, ge=0.0, lt=1.0)
    """Where no `valid` files are given: the share of the train documents, by hash of the id, that becomes "valid"."""
    invalid_utf8: InvalidUtf8 = "skip"
    max_document_bytes: int = Field(default=1 << 30, ge=1)
    """Longer documents are left out and counted."""

    def located(self) -> Self:
        return self.model_copy(update={"directory": str(Path(self.directory).resolve())})

    def pieces(self, piece_bytes: int) -> list[Piece]:
        files = self._files()
        hashed = not self.valid and self.held_out > 0
        if hashed and self.document == "file" and len(files["train"]) < FEWEST_FILES:
            raise BadInput(
                f"corpus.held_out {self.held_out}: {len(files['train'])} whole-file documents are too few to hold some "
                f"out (fewer than {FEWEST_FILES}); set corpus.document to blank_line or line, or name corpus.valid "
                "files, or set corpus.held_out to 0"
            )
        pieces: list[Piece] = []
        for split, paths in files.items():
            spans = (span for path in paths for span in self._spans(path, piece_bytes))
            pieces += packed(None if hashed and split == "train" else split, spans, piece_bytes)
        return pieces

    def read(self, piece: Piece, report: Report) -> Iterator[tuple[Split, Document]]:
        for span in piece.spans:
            found = documents_in(
                Path(self.directory, span.name),
                span.start,
                span.stop,
                unit=self.document,
                max_bytes=self.max_document_bytes,
                report=report,
            )
            for one in found:
                identity = span.name if self.document == "file" else f"{span.name}:{one.offset}"
                document = self._decoded(identity, one.data, report)
                if document is not None:
                    yield piece.split or split_of(identity, self.held_out), document

    def _decoded(self, identity: str, data: bytes, report: Report) -> Document | None:
        try:
            return decoded(identity, data, self.invalid_utf8, report)
        except UnicodeDecodeError as error:
            raise BadInput(
                f"{identity}: not UTF-8 at byte {error.start} of the document; convert the file, or set "
                "corpus.invalid_utf8 to skip or replace"
            ) from error

    def _spans(self, path: Path, piece_bytes: int) -> Iterator[Span]:
        name, size = path.relative_to(self.directory).as_posix(), path.stat().st_size
        if self.document == "file" or is_compressed(path) or size <= piece_bytes:
            yield Span(name, 0, size, size)
            return
        for start in range(0, size, piece_bytes):
            stop = min(start + piece_bytes, size)
            yield Span(name, start, stop, stop - start)

    def _files(self) -> dict[Split, list[Path]]:
        if not Path(self.directory).is_dir():
            raise BadInput(f"corpus.directory {self.directory}: no such directory; give the one that holds the files")
        patterns: dict[Split, Patterns] = {"train": self.train, "valid": self.valid, "test": self.test}
        files = {split: self._matching(split, patterns[split]) for split in patterns}
        owner: dict[Path, Split] = {}
        for split, paths in files.items():
            for path in paths:
                if owner.setdefault(path, split) != split:
                    raise BadInput(
                        f"corpus.{split}: {path.relative_to(self.directory)} is in corpus.{owner[path]} too; "
                        "name each file in one split only"
                    )
        return files

    def _matching(self, split: Split, patterns: Patterns) -> list[Path]:
        base, chosen = Path(self.directory), set[Path]()
        for pattern in patterns:
            if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
                raise BadInput(f"corpus.{split} {pattern}: must be relative to corpus.directory, and within it")
            literal = base / pattern
            found = [literal] if literal.is_file() else [path for path in base.glob(pattern) if path.is_file()]
            if not found:
                raise BadInput(f"corpus.{split} {pattern}: no such file in {self.directory}; correct the path or glob")
            chosen.update(found)
        return sorted(chosen, key=lambda path: path.relative_to(base).as_posix())
