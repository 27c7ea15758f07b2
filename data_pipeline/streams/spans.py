"""Stretches of documents, and how they are laid end to end.

Legend: D documents, K stretches.
"""

from typing import Protocol

import numpy as np


class Documents(Protocol):
    """Tokenized documents in a fixed order; each is at least one token long."""

    @property
    def lengths(self) -> np.ndarray:
        """[D] int64: tokens of each document."""

    @property
    def fingerprint(self) -> str:
        """Changes when any token does."""

    def read(self, documents_K: np.ndarray, offsets_K: np.ndarray, lengths_K: np.ndarray) -> np.ndarray:
        """[sum of lengths] int64: stretch after stretch, tokens offset .. offset + length of its document."""


def laid_out(begins_K: np.ndarray, lengths_K: np.ndarray) -> np.ndarray:
    """The numbers begin .. begin + length of every stretch, end to end.

    >>> laid_out(np.array([7, 0]), np.array([2, 3])).tolist()
    [7, 8, 0, 1, 2]
    """
    ends_K = np.cumsum(lengths_K)
    total = int(ends_K[-1]) if len(ends_K) else 0
    numbers: np.ndarray = np.arange(total) + np.repeat(begins_K - (ends_K - lengths_K), lengths_K)
    return numbers
