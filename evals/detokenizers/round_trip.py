"""What a de-tokenizer promises, and the check that it keeps its promise on a corpus."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol


class Detokenizer(Protocol):
    """Turns a benchmark's tokenised text into natural text, and exactly back."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> int:
        """Rises when any text changes: perplexities of different versions are not to be compared."""

    def text(self, raw: str) -> str:
        """Natural text of raw benchmark text: one line, several, or a whole file."""

    def raw(self, text: str) -> str:
        """The inverse: `raw(text(x)) == x` for every string x."""


@dataclass(frozen=True, slots=True)
class RoundTrip:
    """How many pieces of a corpus came back unchanged."""

    pieces: int
    failed: int
    first_failure: str | None
    """The first raw piece that did not come back."""

    @property
    def verdict(self) -> str:
        """The result in words, for records."""
        if not self.pieces:
            return "not checked: there was no text"
        if self.failed:
            return f"not invertible: {self.failed:,} of {self.pieces:,} pieces came back changed"
        return f"invertible: all {self.pieces:,} pieces came back unchanged"


def round_trip(detokenizer: Detokenizer, pieces: Iterable[str]) -> RoundTrip:
    """De-tokenizes each piece and back, and compares."""
    checked, failures = 0, 0
    first: str | None = None
    for piece in pieces:
        checked += 1
        if detokenizer.raw(detokenizer.text(piece)) != piece:
            failures += 1
            first = piece if first is None else first
    return RoundTrip(checked, failures, first)
