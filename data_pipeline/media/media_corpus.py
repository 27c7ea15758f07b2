"""The files of a corpus of media: which they are, what is told of them, and the pieces in which workers read them.

An item's name is its path below `directory`; of a row of an array `FILE#ROW`, of an archive's member `FILE/MEMBER`, of
one of many in a file `FILE#NUMBER`. It decides the split, by itself.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from data_pipeline.config import BadInput, Config
from data_pipeline.media import archive_entries, image_arrays
from data_pipeline.media.item import Caps, Converter, Entry, Unfit
from data_pipeline.media.labels import ArrayLabels, Labels, TableLabels, checked_pattern
from data_pipeline.sources.chosen_files import check_exists, chosen_files
from data_pipeline.sources.document import SPLITS, Split, grouped, split_of
from data_pipeline.sources.folder import LocalFolder
from data_pipeline.sources.own_files import OF_MEDIA, check_apart


@dataclass(frozen=True, slots=True)
class Span:
    """A file, or a part of it."""

    name: str
    start: int
    stop: int
    """Bytes of a plain tar, rows of an array; of a compressed tar which share of how many."""
    size: int
    """About how many bytes that is."""
    changed: int
    """When the file last was, in nanoseconds."""


class MediaCorpus(Config):
    """Media files and archives of them below `directory`, in the order of their paths."""

    directory: str
    files: list[Annotated[str, Field(min_length=1)]] = Field(min_length=1)
    """Paths or globs of media files, IDX files, .npz and tars (.tar, .tar.gz, .tgz, .tar.zst)."""
    valid: str | None = None
    """A regular expression: items whose whole name matches are of this split."""
    test: str | None = None
    held_out: float = Field(default=0.0, ge=0.0, lt=1.0)
    """The share of the other items, by hash of the name, that becomes "valid"."""
    labels: Labels | None = None
    classes: tuple[str, ...] = ()
    """What the labels can be, in the order of their numbers; none: labels are stored, and no class is told of."""
    array: str = "images"
    """Of an .npz."""
    broken: Literal["skip", "stop"] = "skip"
    """What to do with an item that cannot be used: leave it out and count why, or end with an error."""
    caps: Caps = Caps()

    @field_validator("valid", "test")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        return None if pattern is None else checked_pattern(pattern)

    @model_validator(mode="after")
    def _classes_have_labels(self) -> Self:
        if self.classes and self.labels is None:
            raise ValueError("classes are given, but no labels; say in labels where they come from")
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("classes must differ from each other")
        return self

    def located(self) -> Self:
        """The same corpus for a worker with another working directory."""
        return self.model_copy(update={"directory": str(Path(self.directory).resolve())})

    def split_of(self, name: str) -> Split:
        if self.test is not None and re.fullmatch(self.test, name):
            return "test"
        if self.valid is not None and re.fullmatch(self.valid, name):
            return "valid"
        return split_of(name, self.held_out)

    @property
    def expected(self) -> tuple[Split, ...]:
        """The splits that must not be empty."""
        has = {"train": True, "valid": self.valid is not None or self.held_out > 0, "test": self.test is not None}
        return tuple(split for split in SPLITS if has[split])

    def check_apart(self, directory: Path) -> None:
        """BadInput if what is written to that directory would be taken for the corpus's."""
        check_apart(directory, Path(self.directory), {"files": self.files}, OF_MEDIA)

    def listing(self) -> str:
        """SHA-256 over the names and sizes of the files, and over the table of labels."""
        digest = hashlib.sha256(json.dumps(list(self.sizes().items())).encode())
        if isinstance(self.labels, TableLabels):
            try:
                digest.update(Path(self.directory, self.labels.file).read_bytes())
            except OSError as error:
                raise BadInput(f"corpus.labels.file {self.labels.file}: cannot be read ({error.strerror})") from error
        return digest.hexdigest()

    def pieces(self, piece_bytes: int) -> list[tuple[Span, ...]]:
        """The corpus in pieces of about `piece_bytes`; BadInput if there is nothing to read."""
        return list(grouped((span for name in self.sizes() for span in self._spans(name, piece_bytes)), piece_bytes))

    def items(self, spans: Iterable[Span], converter: Converter) -> Iterator[Entry]:
        """Every item of a piece, in order; an entry with a `problem` where there should be one."""
        for span in spans:
            for entry in self._entries(span):
                yield from self._parts(entry, converter)

    def _parts(self, entry: Entry, converter: Converter) -> Iterator[Entry]:
        if entry.problem is not None or not isinstance(entry.content, bytes):
            yield entry
        elif not entry.name.lower().endswith(converter.endings):
            kinds = ", ".join(converter.endings)
            yield Entry(entry.name, entry.content, problem=Unfit("other_kind", f"its name ends in none of {kinds}"))
        elif not entry.content:
            yield Entry(entry.name, problem=Unfit("empty", "it has no bytes"))
        else:
            try:
                yield from converter.parts(entry, self.caps)
            except Unfit as problem:
                yield Entry(entry.name, entry.content, problem=problem)

    def _entries(self, span: Span) -> Iterator[Entry]:
        path = Path(self.directory, span.name)
        if span.name.lower().endswith(archive_entries.ENDINGS):
            plain = span.name.lower().endswith(".tar")
            read = archive_entries.members if plain else archive_entries.packed_members
            yield from read(path, span.name, span.start, span.stop, self.caps)
        elif image_arrays.is_array(span.name):
            labels = self.labels.array if isinstance(self.labels, ArrayLabels) else None
            yield from image_arrays.rows(
                path, span.name, span.start, span.stop, array=self.array, labels=labels, caps=self.caps
            )
        else:
            yield self._file(path, span)

    def _file(self, path: Path, span: Span) -> Entry:
        try:
            if path.stat().st_size > self.caps.item_bytes:
                return Entry(span.name, problem=Unfit("too_large", f"more than {self.caps.item_bytes:,} bytes"))
            return Entry(span.name, path.read_bytes())
        except OSError as error:
            raise BadInput(
                f"{path}: cannot be read ({error.strerror}); repair it, or leave it out of corpus.files"
            ) from error

    def _spans(self, name: str, piece_bytes: int) -> Iterator[Span]:
        path = Path(self.directory, name)
        status = path.stat()
        size = max(1, status.st_size)
        parts = [(0, 1, size)]
        if image_arrays.is_array(name):
            ends, row_bytes = image_arrays.row_starts(path, self.array, piece_bytes, self.caps)
            parts = [(start, stop, (stop - start) * row_bytes) for start, stop in pairwise(ends)]
        elif name.lower().endswith(".tar"):
            ends = [*archive_entries.starts(path, piece_bytes), size]
            parts = [(start, stop, stop - start) for start, stop in pairwise(ends)]
        elif name.lower().endswith(archive_entries.ENDINGS):
            shares = min(image_arrays.MOST_PIECES, -(-size // piece_bytes))
            parts = [(share, shares, size // shares) for share in range(shares)]
        for start, stop, part_bytes in parts:
            yield Span(name, start, stop, part_bytes, status.st_mtime_ns)

    def sizes(self) -> dict[str, int]:
        """Each file's own, by name and in order; BadInput where there is none."""
        folder = LocalFolder(Path(self.directory))
        check_exists(self.directory, folder)
        return chosen_files(folder, "files", self.files, example="**/*.png")
