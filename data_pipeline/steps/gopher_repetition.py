"""Gopher's rules against repetition: Rae et al. 2021, arXiv 2112.11446, appendix A.1.1 and table A1.

A line or paragraph is a duplicate if it stood in the document before. Shares by runs of n words are of the words'
characters, each once however many runs it lies in, and with the first occurrence of a run that comes again; the paper
leaves these choices open.
"""

import re
from collections import Counter
from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from data_pipeline.sources.document import Document
from data_pipeline.steps.step import DocumentStep, Dropped, share
from data_pipeline.steps.words import run_hashes, word_hashes

TOP_RUNS = {2: 0.20, 3: 0.18, 4: 0.16}
DUPLICATE_RUNS = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}

_PARAGRAPH_END = re.compile(r"\n\s*\n")


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
        text = document.text
        lines = [line for line in text.split("\n") if line.strip()]
        paragraphs = [part for part in _PARAGRAPH_END.split(text) if part.strip()]
        for name, parts, most, most_characters in (
            ("line", lines, self.most_duplicate_lines, self.most_duplicate_line_characters),
            ("paragraph", paragraphs, self.most_duplicate_paragraphs, self.most_duplicate_paragraph_characters),
        ):
            count, characters = _duplicates(parts)
            if share(count, len(parts)) > most:
                return Dropped(f"duplicate_{name}s")
            if share(characters, sum(map(len, parts))) > most_characters:
                return Dropped(f"duplicate_{name}_characters")
        reason = self._runs(text.split())
        return document if reason is None else Dropped(reason)

    def _runs(self, words: Sequence[str]) -> str | None:
        hashes = word_hashes(words)
        lengths = np.fromiter(map(len, words), dtype=np.int64, count=len(words))
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


def _duplicates(parts: Sequence[str]) -> tuple[int, int]:
    """How many stood there before, and their characters."""
    seen: set[str] = set()
    count = characters = 0
    for part in parts:
        if part in seen:
            count, characters = count + 1, characters + len(part)
        seen.add(part)
    return count, characters


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
