"""A rough look at the language: the letters' scripts, and how many words are of a list. It is no classifier.

A letter's script is the first word of its name in the Unicode Character Database, such as LATIN, CYRILLIC, ARABIC, CJK
or HIRAGANA. The bounds are ours: no paper stands behind them.
"""

import re
import sys
import unicodedata
from collections import Counter
from functools import lru_cache
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from data_pipeline.sources.document import Document
from data_pipeline.steps.step import DocumentStep, Dropped, share
from data_pipeline.steps.words import blocks

FREQUENT = ("LATIN", "CYRILLIC", "GREEK", "ARABIC", "HEBREW", "DEVANAGARI", "CJK", "HIRAGANA", "KATAKANA", "HANGUL")
"""Scripts that are there without a look at all of Unicode's characters, which takes a quarter of a second."""

UNNAMED = "UNNAMED"

_NO_ASCII_LETTER = bytes(code for code in range(256) if not bytes([code]).isalpha())
_OTHER = re.compile(r"[^\x00-\x7f]")
_LETTERS = re.compile(r"[^\W\d_]+")


class LanguageHeuristicsConfig(DocumentStep):
    """Drops documents of other scripts, or with too few of some words that every text of a language has."""

    reasons: ClassVar[tuple[str, ...]] = ("no_letters", "other_script", "few_listed_words")

    kind: Literal["language_heuristics"]
    scripts: tuple[str, ...] = Field(default=("LATIN",), min_length=1)
    """Those that are wanted; for Japanese CJK, HIRAGANA and KATAKANA."""
    least_in_scripts: float = Field(default=0.9, ge=0, le=1)
    """Share of the letters."""
    words: tuple[str, ...] = ()
    """Frequent words of the language, in lower case; none: no such test."""
    least_listed_words: float = Field(default=0.05, ge=0, le=1)
    """Share of the words."""

    @field_validator("scripts")
    @classmethod
    def _known(cls, scripts: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [script for script in scripts if script not in FREQUENT and script not in _all_scripts()]
        if unknown:
            raise ValueError(
                f"{', '.join(unknown)}: no script of any letter; write first words of letters' names in Unicode, in "
                f"capitals, of {', '.join(_all_scripts())}"
            )
        return scripts

    def apply(self, document: Document, altered: Counter[str]) -> Document | Dropped:
        letters = script_counts(document.text)
        total = letters.total()
        if not total:
            return Dropped("no_letters")
        if share(sum(letters[script] for script in self.scripts), total) < self.least_in_scripts:
            return Dropped("other_script")
        if self.words and self._listed_share(document.text) < self.least_listed_words:
            return Dropped("few_listed_words")
        return document

    def _listed_share(self, text: str) -> float:
        wanted, listed, total = frozenset(self.words), 0, 0
        for block in blocks(text):
            words = _LETTERS.findall(block.lower())
            listed, total = listed + sum(word in wanted for word in words), total + len(words)
        return share(listed, total)


def script_counts(text: str) -> Counter[str]:
    """How many letters of each script.

    >>> script_counts("né 東京 42")
    Counter({'LATIN': 2, 'CJK': 2})
    """
    counts, others = Counter[str](), Counter[str]()
    for block in blocks(text):
        counts["LATIN"] += len(block.encode("ascii", "ignore").translate(None, _NO_ASCII_LETTER))
        if not block.isascii():
            others.update(_OTHER.findall(block))
    for character, count in others.items():
        script = _script(character)
        if script is not None:
            counts[script] += count
    return +counts


@lru_cache(maxsize=1)
def _all_scripts() -> tuple[str, ...]:
    """In alphabetical order."""
    found = {_script_of(chr(point)) for point in range(sys.maxunicode + 1)}
    return tuple(sorted(script for script in found if script not in (None, UNNAMED)))


@lru_cache(maxsize=1 << 16)
def _script(character: str) -> str | None:
    return _script_of(character)


def _script_of(character: str) -> str | None:
    return re.split("[ -]", unicodedata.name(character, UNNAMED))[0] if character.isalpha() else None
