"""What a baseline can do, and the check of token ids that all of them make."""

from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from data_pipeline.config import BadInput

Ids = NDArray[np.int64]
Floats = NDArray[np.float64]


class Baseline(Protocol):
    """A distribution over token ids 0 .. vocabulary_size - 1, in float64; all logarithms are natural."""

    @property
    def vocabulary_size(self) -> int: ...

    def nats(self, ids: ArrayLike) -> Floats:
        """-log p of every token given those before it; [N] -> [N]. A text starts where a line starts."""

    def log_prob(self, context: ArrayLike, continuation: ArrayLike) -> float:
        """log p(continuation | context) in nats; [C], [N] -> a number, zero for an empty continuation."""

    def next_log_probs(self, context: ArrayLike) -> Floats:
        """log p of every token that may follow; [C] -> [vocabulary_size]."""

    def describe(self) -> dict[str, Any]:
        """Plain values for the record of a result; equal for models that are estimated alike."""


def checked_ids(ids: ArrayLike, *, vocabulary_size: int, name: str = "ids") -> Ids:
    """The ids as int64 [N].

    Raises BadInput for anything but a one-dimensional sequence of integers in 0 .. vocabulary_size - 1.
    """
    array = np.asarray(ids)
    if array.ndim != 1:
        raise BadInput(f"{name}: shape {array.shape}, but must be one sequence of token ids; give one text at a time")
    if array.size == 0:
        return np.empty(0, dtype=np.int64)
    if not np.issubdtype(array.dtype, np.integer):
        raise BadInput(f"{name}: {array.dtype}, but token ids are integers; map words to ids first (Words.ids)")
    low, high = int(array.min()), int(array.max())
    if low < 0 or high >= vocabulary_size:
        wrong = low if low < 0 else high
        raise BadInput(
            f"{name}: {wrong} is outside of the vocabulary, 0 .. {vocabulary_size - 1}; "
            "give an unknown word the id of the unknown word"
        )
    return array.astype(np.int64, copy=False)


def checked_vocabulary_size(vocabulary_size: int) -> int:
    """Raises BadInput unless there is at least one token."""
    if vocabulary_size < 1:
        raise BadInput(f"vocabulary_size: {vocabulary_size}, but must be at least 1")
    return vocabulary_size
