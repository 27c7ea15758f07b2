"""The steps of a recipe in their order, and what is known so far of a piece's documents.

A document's *code* is 0 while it stays; otherwise one more than the place, among all reasons of all steps in order, of
why it was dropped.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from data_pipeline.sources.document import Document
from data_pipeline.steps import Step
from data_pipeline.steps.step import CorpusStep, DocumentStep, Dropped


@dataclass(frozen=True, slots=True)
class Pass:
    """One reading of the corpus: the document steps [start, stop), then signatures for the corpus step at `stop`."""

    start: int
    stop: int
    corpus_step: CorpusStep | None


def passes(steps: Sequence[Step]) -> list[Pass]:
    """One for each corpus step, and one more if steps behind the last of them are worth remembering.

    Those that alter text are done again whenever a document is read; so are their verdicts.
    """
    found, start = [], 0
    for place, step in enumerate(steps):
        if isinstance(step, CorpusStep):
            found.append(Pass(start, place, step))
            start = place + 1
    if any(isinstance(step, DocumentStep) and not step.alters for step in steps[start:]):
        found.append(Pass(start, len(steps), None))
    return found


def reason_names(steps: Sequence[Step]) -> list[str]:
    """`step/reason` of each code but 0."""
    return [f"{step.kind}/{reason}" for step in steps for reason in step.reasons]


def first_code(steps: Sequence[Step], place: int) -> int:
    """The code of the first reason of the step at this place."""
    return 1 + sum(len(step.reasons) for step in steps[:place])


@dataclass(frozen=True, slots=True)
class Chain:
    """Document steps in order, each with the code of its first reason and its kind."""

    steps: tuple[tuple[int, DocumentStep, str], ...]

    def apply(self, document: Document, altered: Counter[str]) -> Document | int:
        """What is left of it, or the code of why it was dropped; what was altered is counted where it stays."""
        noted = Counter[str]()
        for code, step, kind in self.steps:
            counts = Counter[str]()
            outcome = step.apply(document, counts)
            if isinstance(outcome, Dropped):
                return code + step.reasons.index(outcome.reason)
            document = outcome
            noted.update({f"{kind}/{name}": count for name, count in counts.items() if count})
        altered.update(noted)
        return document


def chain(steps: Sequence[Step], known: int, stop: int) -> Chain:
    """The document steps before `stop`; of those before `known`, whose verdicts are known, only what alters."""
    return Chain(tuple(_chosen(steps, known, stop)))


def _chosen(steps: Sequence[Step], known: int, stop: int) -> Iterator[tuple[int, DocumentStep, str]]:
    for place, step in enumerate(steps[:stop]):
        if isinstance(step, DocumentStep) and (place >= known or step.alters):
            yield first_code(steps, place), step, step.kind


def code_counts(steps: Sequence[Step], codes: Sequence[int] | np.ndarray) -> Counter[str]:
    """How many documents were dropped, by `step/reason`."""
    names = reason_names(steps)
    counts = np.bincount(codes, minlength=len(names) + 1)[1:].tolist()
    return +sum((Counter({name: count}) for name, count in zip(names, counts, strict=True)), Counter[str]())
