"""Gopher's rules against repetition: Rae et al. 2021, arXiv 2112.11446, appendix A.1.1 and table A1.

As in the paper, a character counts once however many repeated runs it lies in. It leaves open what is chosen here: a
line or paragraph is a duplicate if it stood in the document before, but of a run that comes again the first occurrence
counts too; characters are those of words, without the white space between them; the most frequent run is, of equals,
the first.
"""

import re
from collections import Counter
from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from data_pipeline.sources.document import Document
from data_pipeline.steps.step import DocumentStep, Dropped, share
from data_pipeline.steps.words import blocks, run_hashes, word_hashes

TOP_RUNS = {2: 0.20, 3: 0.18, 4: 0.16}
DUPLICATE_RUNS = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}

_ENDS = {"line": re.compile(r"\n"), "paragraph": re.compile(r"\n\s*\n")}


class GopherRepetitionConfig(DocumentStep):
    """A document above one of the bounds, all shares, is dropped."""

    reasons: ClassVar[tuple[str, ...]] = (
        "duplicate_lines",
        "duplicate_line_characters",
        "duplicate_paragraphs",
        "duplicate_paragraph_characters",
        "top_runs",
        "duplicate_runs",
    )

    kind: Literal["gopher_repetition"]
    most_duplicate_lines: float = Field(default=0.30, ge=0, le=1)
    most_duplicate_line_characters: float = Field(default=0.20, ge=0, le=1)
    most_duplicate_paragraphs: float = Field(default=0.30, ge=0, le=1)
    most_duplicate_paragraph_characters: float = Field(default=0.20, ge=0, le=1)
    most_in_top_run: dict[int, float] = TOP_RUNS
    """By number of words: the share of characters in the run that is most frequent, if it comes twice or more."""
    most_in_duplicate_runs: dict[int, float] = DUPLICATE_RUNS
    """By number of words: the share of characters in all runs that come twice or more."""

    def apply(self, document: Document, altered: Counter[str]) -> Document | Dropped:
        for name, most, most_characters in (
            ("line", self.most_duplicate_lines, self.most_duplicate_line_characters),
            ("paragraph", self.most_duplicate_paragraphs, self.most_duplicate_paragraph_characters),
        ):
            parts, repeated, all_characters, characters = _duplicates(document.text, _ENDS[name])
            if share(repeated, parts) > most:
                return Dropped(f"duplicate_{name}s")
            if share(characters, all_characters) > most_characters:
                return Dropped(f"duplicate_{name}_characters")
        reason = self._runs(document.text)
        return document if reason is None else Dropped(reason)

    def _runs(self, text: str) -> str | None:
        hashes, lengths = _words(text)
        total = int(lengths.sum())
        for wanted, bounds, reason in (
            ("top", self.most_in_top_run, "top_runs"),
            ("all", self.most_in_duplicate_runs, "duplicate_runs"),
        ):
            for length, most in sorted(bounds.items()):
                starts = _repeated(run_hashes(hashes, length), only_top=wanted == "top")
                if not len(starts):
                    break  # a longer run comes again only if its parts do
                if share(_covered(starts, length, lengths), total) > most:
                    return reason
        return None


def _duplicates(text: str, end: re.Pattern[str]) -> tuple[int, int, int, int]:
    """Of the parts that are more than white space: how many, how many that stood there before; characters of both."""
    counts = Counter(part for part in end.split(text) if part.strip())
    again = {part: count - 1 for part, count in counts.items() if count > 1}
    return counts.total(), sum(again.values()), _characters(counts), _characters(again)


def _characters(counts: Mapping[str, int]) -> int:
    return sum(len(part) * count for part, count in counts.items())


def _words(text: str) -> tuple[np.ndarray, np.ndarray]:
    """The hash and the characters of each word, block after block: a list of a giant's words has many times its
    size."""
    hashes, lengths = [np.zeros(0, dtype=np.uint64)], [np.zeros(0, dtype=np.int64)]
    for block in blocks(text):
        words = block.split()
        hashes.append(word_hashes(words))
        lengths.append(np.fromiter(map(len, words), dtype=np.int64, count=len(words)))
    return np.concatenate(hashes), np.concatenate(lengths)


def _repeated(runs: np.ndarray, *, only_top: bool) -> np.ndarray:
    """Where the runs begin that come twice or more; or only the most frequent one of them, the first of equals."""
    order = np.argsort(runs, kind="stable")
    in_order = runs[order]
    begins = np.flatnonzero(np.concatenate([[True], in_order[1:] != in_order[:-1]])) if len(runs) else order
    sizes = np.diff(np.append(begins, len(runs)))
    if only_top and len(sizes) and sizes.max() > 1:
        firsts = np.where(sizes == sizes.max(), order[begins], len(runs))
        chosen = int(np.argmin(firsts))
        found: np.ndarray = order[begins[chosen] : begins[chosen] + sizes[chosen]]
        return found
    return order[np.repeat(sizes > 1, sizes)]


def _covered(starts: np.ndarray, length: int, lengths: np.ndarray) -> int:
    """The characters of the words within the runs."""
    edges = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.add.at(edges, starts, 1)
    np.add.at(edges, starts + length, -1)
    return int(lengths[np.cumsum(edges[:-1]) > 0].sum())
