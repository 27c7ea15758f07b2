"""Documents, and the pieces in which workers read a corpus.

A corpus lists its *pieces* from file sizes alone, in an order that depends on nothing but the corpus; any worker can
read any piece. A piece is what one worker prepares at a time, whatever the number of workers.
"""

import abc
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal, Self

from data_pipeline.config import Config
from data_pipeline.mixing import fraction_of

Split = Literal["train", "valid", "test"]

InvalidUtf8 = Literal["skip", "replace", "stop"]
"""What to do with a document that is not UTF-8: leave it out, put U+FFFD for what is wrong, or end with an error."""


@dataclass(frozen=True, slots=True)
class Document:
    """A text with an identity that does not depend on how the corpus is read."""

    id: str
    text: str
    num_bytes: int
    """Of the text in UTF-8: what bits per byte divide by."""


@dataclass(frozen=True, slots=True)
class Span:
    """Part of a file (bytes) or of a table (rows)."""

    name: str
    start: int
    stop: int
    """The documents that start in [start, stop)."""
    size: int
    """About how many bytes that is."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Spans of one split, or of all splits where `split` is None and the hash of a document's id decides."""

    split: Split | None
    spans: tuple[Span, ...]


@dataclass(slots=True)
class Report:
    """What reading left out or altered, by reason."""

    counts: Counter[str] = field(default_factory=Counter)

    def add(self, reason: Literal["empty", "invalid_utf8", "replaced_utf8", "too_long", "expands_too_far"]) -> None:
        self.counts[reason] += 1


class CorpusConfig(Config, abc.ABC):
    """A readable text corpus."""

    @abc.abstractmethod
    def pieces(self, piece_bytes: int) -> list[Piece]:
        """The corpus in pieces of about `piece_bytes`, in its fixed order; BadInput if there is nothing to read."""

    @abc.abstractmethod
    def read(self, piece: Piece, report: Report) -> Iterator[tuple[Split, Document]]:
        """The documents of a piece in order, never an empty one; BadInput for a file that cannot be read."""

    def located(self) -> Self:
        """The same corpus for a worker with another working directory."""
        return self

    def documents(self, split: Split) -> Iterator[Document]:
        """All documents of a split, in order."""
        for piece in self.pieces(1 << 62):
            if piece.split in (None, split):
                yield from (document for name, document in self.read(piece, Report()) if name == split)


def packed(split: Split | None, spans: Iterable[Span], piece_bytes: int) -> Iterator[Piece]:
    """Consecutive spans together as long as they stay within `piece_bytes`; a larger span is a piece of its own."""
    group: list[Span] = []
    for span in spans:
        if group and sum(one.size for one in group) + span.size > piece_bytes:
            yield Piece(split, tuple(group))
            group = []
        group.append(span)
    if group:
        yield Piece(split, tuple(group))


def split_of(document_id: str, held_out: float) -> Split:
    """By the hash of the id: a share of about `held_out` is "valid"."""
    return "valid" if fraction_of(document_id) < held_out else "train"


def decoded(document_id: str, data: bytes, policy: InvalidUtf8, report: Report) -> Document | None:
    """The document, or None (and why, in the report) if it is left out; UnicodeDecodeError if the policy is "stop"."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        if policy == "stop":
            raise
        if policy == "skip":
            report.add("invalid_utf8")
            return None
        text = data.decode("utf-8", errors="replace")
        data = text.encode("utf-8")
        report.add("replaced_utf8")
    if not text or text.isspace():
        report.add("empty")
        return None
    return Document(id=document_id, text=text, num_bytes=len(data))
