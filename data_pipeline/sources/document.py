"""Documents, and the pieces in which workers read a corpus.

A corpus lists its *pieces* from file sizes and tables of contents alone, in an order that depends on nothing but the
corpus; any worker can read any piece. A piece is what one worker prepares at a time, whatever the number of workers.
"""

import abc
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, Self, TypeVar

from pydantic import Field

from data_pipeline.config import Config
from data_pipeline.mixing import fraction_of

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")

Reason = Literal[
    "empty",
    "empty_file",
    "too_long",
    "expands_too_far",
    "damaged_file",
    "invalid_utf8",
    "replaced_utf8",
    "lone_surrogate",
    "replaced_surrogate",
    "nul",
    "kept_nul",
    "removed_nul",
    "removed_byte_order_mark",
    "not_json",
    "no_text",
    "text_not_a_string",
    "no_id",
    "other_member",
    "other_record",
    "unreadable_record",
]
"""Why a document, or a file, was left out, altered or is remarkable; docs/data.md says what each means."""


@dataclass(frozen=True, slots=True)
class Document:
    """A text with an identity that does not depend on how the corpus is read."""

    id: str
    text: str
    num_bytes: int
    """Of the text in UTF-8: what bits per byte divide by."""
    source: str = ""
    """The file in the corpus, the table, or the URL that it comes from."""
    start: int = 0
    stop: int = 0
    """Its bytes [start, stop) in the uncompressed file; of a table, its row."""
    continues: bool = False
    """It is a part of a document too long to be held at once, and not the first: it continues the one before it."""
    more: bool = False
    """It is such a part, and not the last: the next one continues it."""


@dataclass(frozen=True, slots=True)
class Span:
    """Part of a file (bytes) or of a table (rows)."""

    name: str
    start: int
    stop: int
    """The documents that start in [start, stop)."""
    size: int
    """About how many bytes that is."""
    document: tuple[int, int] | None = None
    """The bytes [start, stop) of a document too long to be held at once: the span is all or a part of it."""

    @property
    def continues(self) -> bool:
        """Whether the document began before the span."""
        return self.document is not None and self.start > self.document[0]

    @property
    def more(self) -> bool:
        """Whether the document goes on after the span."""
        return self.document is not None and self.stop < self.document[1]


@dataclass(frozen=True, slots=True)
class Piece:
    """Spans of one split, or of all splits where `split` is None and the hash of a document's id decides."""

    split: Split | None
    spans: tuple[Span, ...]


MOST_NAMED = 100
"""Of what one report has of one reason: the first."""

LONGEST_NAME = 1000
"""Characters of a name in a report, of which longer ones, as an `id_field` may hold, have the beginning."""


class LeftOut(Config):
    """Something that was left out or altered, and where it is."""

    reason: str
    id: str = Field(default="", exclude_if=lambda value: not value)
    """Of the document or the item, or its place; empty of a file, and where none is known."""
    file: str = Field(default="", exclude_if=lambda value: not value)
    start: int | None = Field(default=None, exclude_if=lambda value: value is None)
    """As a document's."""


@dataclass(slots=True)
class Report:
    """What reading left out, altered or remarked, by reason."""

    counts: Counter[str] = field(default_factory=Counter)
    named: list[LeftOut] = field(default_factory=list)
    """The first of each reason."""
    file: str = ""
    """That is being read."""
    start: int | None = None
    """Of the document in it that is being read, or was last."""
    _num_named: Counter[str] = field(init=False)

    def __post_init__(self) -> None:
        self._num_named = Counter(one.reason for one in self.named)

    def add(self, reason: Reason, identity: str = "", start: int | None = None) -> None:
        self.note(reason, identity, start)

    def note(self, reason: str, identity: str = "", start: int | None = None, count: int = 1) -> None:
        """One document or item, for a reason of whatever list; it may count more than once."""
        self.counts[reason] += count
        if self._num_named[reason] == MOST_NAMED:
            return
        self._num_named[reason] += 1
        start = self.start if start is None else start
        self.named.append(LeftOut(reason=reason, id=_written(identity), file=_written(self.file), start=start))


class CorpusConfig(Config, abc.ABC):
    """A readable text corpus."""

    @abc.abstractmethod
    def pieces(self, piece_bytes: int) -> list[Piece]:
        """The corpus in pieces of about `piece_bytes`, in its fixed order; BadInput if there is nothing to read."""

    @abc.abstractmethod
    def read(self, piece: Piece, report: Report) -> Iterator[tuple[Split, Document]]:
        """The documents of a piece in order, never an empty one; BadInput for a file that cannot be read.

        One too long to be held comes in parts, which `continues` and `more` tell, each with an id of its own.
        """

    def listed(self, span: Span) -> tuple[str | int, ...]:
        """What a span tells of the names and sizes of the corpus's files."""
        return span.name, span.start, span.stop

    def stamp(self, piece: Piece) -> str | None:
        """Equal stamps: what the piece reads has not changed. None where that cannot be told without reading it."""
        return None

    def check_apart(self, directory: Path) -> None:
        """BadInput if what is written to that directory would be taken for the corpus's."""
        return

    def located(self) -> Self:
        """The same corpus for a worker with another working directory."""
        return self

    def documents(self, split: Split) -> Iterator[Document]:
        """All documents of a split, in order."""
        for piece in self.pieces(1 << 62):
            if piece.split in (None, split):
                yield from (document for name, document in self.read(piece, Report()) if name == split)


def _written(name: str) -> str:
    """With `\\udce9` for a byte that is not UTF-8, so that any file can hold it, and not longer than `LONGEST_NAME`."""
    written = name[: LONGEST_NAME + 1].encode("utf-8", "backslashreplace").decode()
    return written if len(written) <= LONGEST_NAME else f"{written[: LONGEST_NAME - 1]}…"


class Sized(Protocol):
    @property
    def size(self) -> int:
        """About how many bytes it is."""


Part = TypeVar("Part", bound=Sized)


def grouped(parts: Iterable[Part], piece_bytes: int) -> Iterator[tuple[Part, ...]]:
    """Consecutive ones together as long as they stay within `piece_bytes`; a larger one is alone."""
    group: list[Part] = []
    size = 0
    for part in parts:
        if group and size + part.size > piece_bytes:
            yield tuple(group)
            group, size = [], 0
        group.append(part)
        size += part.size
    if group:
        yield tuple(group)


def packed(split: Split | None, spans: Iterable[Span], piece_bytes: int) -> Iterator[Piece]:
    """The spans in pieces of about `piece_bytes`."""
    return (Piece(split, group) for group in grouped(spans, piece_bytes))


def split_of(document_id: str, held_out: float) -> Split:
    """By the hash of the id: a share of about `held_out` is "valid"."""
    return "valid" if fraction_of(document_id) < held_out else "train"
