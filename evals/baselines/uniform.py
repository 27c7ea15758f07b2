"""Every token equally likely: log vocabulary_size nats each, which a model that has learnt anything is below."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from evals.baselines.baseline import Floats, Ids, checked_ids, checked_vocabulary_size


@dataclass(frozen=True)
class Uniform:
    """p(token | anything) = 1 / vocabulary_size.

    >>> float(np.exp(Uniform(50).nats([3, 14, 15]).mean()).round(9))
    50.0
    """

    vocabulary_size: int

    def __post_init__(self) -> None:
        checked_vocabulary_size(self.vocabulary_size)

    def nats(self, ids: ArrayLike) -> Floats:
        """-log p of every token; [N] -> [N]."""
        return np.full(len(checked_ids(ids, vocabulary_size=self.vocabulary_size)), math.log(self.vocabulary_size))

    def log_prob(self, context: ArrayLike, continuation: ArrayLike) -> float:
        """log p(continuation) in nats."""
        checked_ids(context, vocabulary_size=self.vocabulary_size, name="context")
        continuation_N = checked_ids(continuation, vocabulary_size=self.vocabulary_size, name="continuation")
        return -len(continuation_N) * math.log(self.vocabulary_size)

    def next_log_probs(self, context: ArrayLike) -> Floats:
        """log p of every token; [C] -> [vocabulary_size]."""
        checked_ids(context, vocabulary_size=self.vocabulary_size, name="context")
        return np.full(self.vocabulary_size, -math.log(self.vocabulary_size))

    def describe(self) -> dict[str, Any]:
        return {"model": "uniform", "vocabulary_size": self.vocabulary_size}


BYTES = Uniform(256)
"""Over bytes: 8 bits per byte whatever the text."""


def byte_ids(text: str | bytes) -> Ids:
    """The bytes of a text (UTF-8) as ids; [bytes].

    >>> float((BYTES.nats(byte_ids("né")) / np.log(2)).sum())
    24.0
    """
    data = text.encode() if isinstance(text, str) else text
    return np.frombuffer(data, dtype=np.uint8).astype(np.int64)
