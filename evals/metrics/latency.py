"""Latency of simultaneous translation: how much of the source had been read when each target token was written.

With x the source, y the output, g(i) how many source tokens had been read when y_i was written (i from 1), and
gamma = |y| / |x|:

    AP    sum_i g(i) / (|x| |y|)                                        Cho & Esipova 2016, https://arxiv.org/abs/1606.02012
    AL    1/tau sum_{i <= tau} g(i) - (i - 1) / gamma                   Ma et al. 2019, https://arxiv.org/abs/1810.08398
    LAAL  the same with gamma = max(|y|, |y*|) / |x|, y* the reference  Papi et al. 2022, https://arxiv.org/abs/2206.05807
    DAL   1/|y| sum_i g'(i) - (i - 1) / gamma,                          Arivazhagan et al. 2019, https://arxiv.org/abs/1906.05218
          g'(1) = g(1), g'(i) = max(g(i), g'(i - 1) + 1 / gamma)
    arcs  g(i) - i, the steps that a path lies off the diagonal

tau is the first i with g(i) = |x|, and |y| where the source was never read to its end. AL's gamma is that of the
output, so that writing more lowers it; LAAL is for that. AL, LAAL and DAL count the first token read as 1 and arcs as
0: the path g = (3, 3, 4, 4) of four source tokens has arcs 2, 1, 1, 0 (mean 1) and DAL 3, since what was waited for
once is never caught up.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch

from data_pipeline.config import BadInput
from evals.metric import Metric
from evals.metrics.average import average


@dataclass(frozen=True, slots=True)
class ReadPath:
    """One sentence."""

    reads: tuple[int, ...]
    """g(i) of each token written."""
    source_length: int
    reference_length: int

    def __post_init__(self) -> None:
        falls = any(a > b for a, b in pairwise(self.reads))
        if self.source_length < 1 or self.reference_length < 1:
            raise BadInput(f"lengths {self.source_length}, {self.reference_length} of source and reference: at least 1")
        if falls or (self.reads and not 0 <= self.reads[0] <= self.reads[-1] <= self.source_length):
            raise BadInput(
                f"reads {self.reads}: must never fall, and lie between 0 and {self.source_length}, the source"
            )


def average_proportion(path: ReadPath) -> float:
    """AP, between 0 and 1."""
    return sum(path.reads) / (path.source_length * len(path.reads))


def average_lagging(path: ReadPath) -> float:
    """AL, in source tokens; negative where the output runs ahead of the diagonal."""
    return _lagging(path, len(path.reads))


def length_adaptive_average_lagging(path: ReadPath) -> float:
    """LAAL, in source tokens."""
    return _lagging(path, max(len(path.reads), path.reference_length))


def _lagging(path: ReadPath, target_length: int) -> float:
    step = path.source_length / target_length  # 1 / gamma
    until = next((i for i, read in enumerate(path.reads, 1) if read == path.source_length), len(path.reads))
    return sum(read - i * step for i, read in enumerate(path.reads[:until])) / until


def differentiable_average_lagging(path: ReadPath) -> float:
    """DAL, in source tokens."""
    step = path.source_length / len(path.reads)  # 1 / gamma
    delayed, total = -step, 0.0
    for i, read in enumerate(path.reads):
        delayed = max(float(read), delayed + step)
        total += delayed - i * step
    return total / len(path.reads)


def arcs(path: ReadPath) -> tuple[int, ...]:
    """g(i) - i for each token written.

    >>> path = ReadPath(reads=(3, 3, 4, 4), source_length=4, reference_length=4)
    >>> arcs(path), differentiable_average_lagging(path)
    ((2, 1, 1, 0), 3.0)
    """
    return tuple(read - i for i, read in enumerate(path.reads, 1))


def mean_arc(path: ReadPath) -> float:
    return sum(arcs(path)) / len(path.reads)


MEASURES: tuple[tuple[str, Callable[[ReadPath], float], str], ...] = (
    ("average_proportion", average_proportion, "share of the source"),
    ("average_lagging", average_lagging, "source tokens"),
    ("length_adaptive_average_lagging", length_adaptive_average_lagging, "source tokens"),
    ("differentiable_average_lagging", differentiable_average_lagging, "source tokens"),
    ("mean_arc", mean_arc, "source tokens"),
)


def latency(paths: Iterable[ReadPath], *, tokens: str, protocol: Mapping[str, Any]) -> tuple[Metric, ...]:
    """All five, each a mean over sentences; none where no sentence has output.

    `tokens` says what was counted (words, characters, a tokenizer by its hash). Sentences without output have no
    latency and are left out; `count` says how many were in.
    """
    written = [path for path in paths if path.reads]
    if not written:
        return ()
    known = {
        **protocol,
        "tokens": tokens,
        "mean": "over sentences with output",
        "gamma": "of the output, LAAL's longer",
    }
    return tuple(
        average(
            name, torch.tensor([measure(path) for path in written]).double(), unit=unit, better="lower", protocol=known
        )
        for name, measure, unit in MEASURES
    )
