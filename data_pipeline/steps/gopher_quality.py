"""Gopher's rules for the quality of web text: Rae et al. 2021, arXiv 2112.11446, appendix A.1.1, "Quality Filtering".

Words are what stands between white space, lines those that are not empty. The paper does not list its bullets; the
defaults are ours.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import ClassVar, Literal

from pydantic import Field

from data_pipeline.sources.document import Document
from data_pipeline.steps.step import DocumentStep, Dropped, share

STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
"""Of which the paper wants two."""
BULLETS = ("•", "‣", "◦", "▪", "●", "○", "■", "□", "-", "\u2013", "*")
ELLIPSES = ("...", "…")

_WORD = re.compile(r"\S+")
_EDGES = "\"'“”\u2018\u2019()[]{}.,;:!?*_"


class GopherQualityConfig(DocumentStep):
    """A document outside one of the bounds is dropped; the first one that it fails is the reason."""

    reasons: ClassVar[tuple[str, ...]] = (
        "few_words",
        "many_words",
        "short_words",
        "long_words",
        "hash_signs",
        "ellipses",
        "bullet_lines",
        "ellipsis_lines",
        "few_alphabetic_words",
        "few_stop_words",
    )

    kind: Literal["gopher_quality"]
    least_words: int = Field(default=50, ge=0)
    most_words: int = Field(default=100_000, ge=1)
    least_mean_word_length: float = Field(default=3.0, ge=0)
    """In characters."""
    most_mean_word_length: float = Field(default=10.0, gt=0)
    most_symbols_per_word: float = Field(default=0.1, ge=0)
    """Of hash signs, and of ellipses."""
    most_bullet_lines: float = Field(default=0.9, ge=0, le=1)
    """Share of the lines that may start with a bullet."""
    most_ellipsis_lines: float = Field(default=0.3, ge=0, le=1)
    """Share of the lines that may end with an ellipsis."""
    least_alphabetic_words: float = Field(default=0.8, ge=0, le=1)
    """Share of the words that must have a letter."""
    least_stop_words: int = Field(default=2, ge=0)
    """How many different ones must be there."""
    stop_words: tuple[str, ...] = STOP_WORDS
    bullets: tuple[str, ...] = BULLETS

    def apply(self, document: Document, altered: Counter[str]) -> Document | Dropped:
        text = document.text
        words = [found[0] for found in islice(_WORD.finditer(text), self.most_words + 1)]
        lines = [line for line in text.splitlines() if line.strip()] if len(words) <= self.most_words else []
        for reason, wrong in self._failures(text, words, lines):
            if wrong:
                return Dropped(reason)
        return document

    def _failures(self, text: str, words: Sequence[str], lines: Sequence[str]) -> Iterator[tuple[str, bool]]:
        yield "few_words", len(words) < max(1, self.least_words)
        yield "many_words", len(words) > self.most_words
        mean_length = sum(map(len, words)) / len(words)
        yield "short_words", mean_length < self.least_mean_word_length
        yield "long_words", mean_length > self.most_mean_word_length
        yield "hash_signs", share(text.count("#"), len(words)) > self.most_symbols_per_word
        yield "ellipses", share(sum(map(text.count, ELLIPSES)), len(words)) > self.most_symbols_per_word
        bullet_lines = sum(line.lstrip().startswith(self.bullets) for line in lines)
        yield "bullet_lines", share(bullet_lines, len(lines)) > self.most_bullet_lines
        ellipsis_lines = sum(line.rstrip().endswith(ELLIPSES) for line in lines)
        yield "ellipsis_lines", share(ellipsis_lines, len(lines)) > self.most_ellipsis_lines
        alphabetic = sum(word.isalpha() or any(map(str.isalpha, word)) for word in words)
        yield "few_alphabetic_words", share(alphabetic, len(words)) < self.least_alphabetic_words
        yield "few_stop_words", not self._has_stop_words(words)

    def _has_stop_words(self, words: Sequence[str]) -> bool:
        wanted, missing = self.least_stop_words, set(self.stop_words)
        for word in words:
            if len(self.stop_words) - len(missing) >= wanted:
                return True
            missing.discard(word.strip(_EDGES).lower())
        return len(self.stop_words) - len(missing) >= wanted
