"""What a task is: examples made of requests, a judgement of each, and metrics of them all.

A task reads data, never a model; a scorer answers requests, never knows a task. What is written for each example is a
flat record of plain values, from which alone the metrics are computed: a file of records is enough to score it again.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from evals.metric import Metric, mean_and_error
from evals.scoring.encoding import Request
from evals.tasks.data import DataSource, TaskData

Record = dict[str, Any]
"""Of one example: plain values by name, `example` its name."""


@dataclass(frozen=True, slots=True)
class Example:
    """One thing that is scored: requests, or running text; never both."""

    name: str
    """Unique in its task, and the same in every run."""
    requests: tuple[Request, ...] = ()
    text: str | None = None
    facts: Mapping[str, Any] | None = None
    """What the judgement needs besides the answer; plain values."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model says of one request, or of a text."""

    nats: tuple[float, ...]
    """-log p of each token."""
    greedy: tuple[bool, ...]
    """Whether each is the likeliest."""
    greedy_barred: bool = False
    """Whether the first is the likeliest of those that the task does not bar."""
    dropped: int = 0
    """Tokens of the context that did not fit."""

    @property
    def total(self) -> float:
        return math.fsum(self.nats)


class Task(Protocol):
    """A benchmark; `evals/tasks/lambada.py` is one to read first."""

    name: str
    title: str
    """As tables call it."""
    version: int
    """Counted up when any number could change."""

    def load(self, source: DataSource) -> TaskData:
        """Its files, read and checked; raises Missing where there are none, BadInput where they are not as they must
        be: naming file, line, field and rule."""

    def examples(self, data: TaskData) -> list[Example]:
        """In a fixed order."""

    def barred_words(self) -> frozenset[str]:
        """Words that the likeliest continuation may not begin with, in the filtered variants."""
        return frozenset()

    def judge(self, example: Example, answers: Sequence[Answer]) -> Record:
        """What is kept of an example, by name; `answers` are those of its requests, or the one of its text."""

    def values(self, records: Sequence[Record]) -> list[Metric]:
        """The task's numbers, each variant under its name; in the protocol what holds beyond that of the task."""

    def protocol(self) -> dict[str, Any]:
        """How it is done, in plain values: stands in the record of every number."""


def accuracy(name: str, right: Sequence[bool], **protocol: Any) -> Metric:
    """Per cent of the examples."""
    mean, error = mean_and_error([100.0 * one for one in right])
    return Metric(name, mean, "%", "higher", len(right), error, protocol)


def error_of_sum(parts: Sequence[float], sizes: Sequence[float]) -> float | None:
    """Standard error of the sum of parts, as if they were drawn independently: by how far each is from the share that
    its size has in the sum (a ratio estimate; None of fewer than two)."""
    if len(parts) < 2:
        return None
    mean = math.fsum(parts) / math.fsum(sizes)
    spread = math.fsum((part - mean * size) ** 2 for part, size in zip(parts, sizes, strict=True))
    return math.sqrt(spread * len(parts) / (len(parts) - 1))


def perplexity_of(name: str, total: float, error: float | None, count: int, unit: str, **protocol: Any) -> Metric:
    """exp of `total` nats over `count` things; `error` is the total's, taken through exp to first order."""
    mean = total / count
    value = math.exp(mean) if mean < 700 else math.inf
    return Metric(name, value, unit, "lower", count, None if error is None else value * error / count, protocol)


def perplexity(name: str, nats: Sequence[float], counts: Sequence[int], unit: str, **protocol: Any) -> Metric:
    """exp of the nats per counted thing; its error is that of independent examples."""
    return perplexity_of(name, math.fsum(nats), error_of_sum(nats, counts), sum(counts), unit, **protocol)


def likeliest(scores: Sequence[float]) -> int:
    """The place of the lowest score, in nats; among equals the first."""
    return min(range(len(scores)), key=scores.__getitem__)
