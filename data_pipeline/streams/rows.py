"""Independent rows of tokens: those of an epoch, numbered, and the order in which each epoch reads them.

Legend: R rows, L positions of a row.
"""

from typing import Protocol

import numpy as np

from data_pipeline.batch import TokenBatch
from data_pipeline.streams.concatenation import Epochs
from data_pipeline.streams.permutation import Permutation
from data_pipeline.streams.spans import Documents


class Rows(Protocol):
    """What rows the documents give; each epoch has the same number of them."""

    @property
    def num_rows(self) -> int:
        """Of an epoch."""

    @property
    def shuffle(self) -> bool:
        """Whether each epoch reads them in another order."""

    def batch(self, epoch: int, row_R: np.ndarray) -> TokenBatch:
        """These rows of one epoch."""

    def fingerprint(self) -> dict[str, str | int]:
        """What the rows depend on."""


class CutRows:
    """Each epoch's documents end to end, cut every L tokens: N tokens give (N - 1) // L rows."""

    def __init__(
        self, documents: Documents, *, length: int, seed: int, shuffle: bool = True, separate_documents: bool = True
    ) -> None:
        """An age counts from the row's start; with `separate_documents` from the document's start where that is later.

        A row's id is epoch * N + the position of its first token.
        """
        self._epochs = Epochs(documents, seed=seed, shuffle=shuffle, separate_documents=separate_documents)
        self._length, self.shuffle = length, shuffle
        self.num_tokens = self._epochs.num_tokens
        self.num_rows = max(self.num_tokens - 1, 0) // length

    def batch(self, epoch: int, row_R: np.ndarray) -> TokenBatch:
        start_R = row_R * self._length
        return self._epochs.batch(epoch, start_R, self._length, age_from_R=start_R)

    def fingerprint(self) -> dict[str, str | int]:
        return self._epochs.fingerprint()


def in_order(rows: Rows, seed: int, epoch: int, place: np.ndarray) -> np.ndarray:
    """Which row stands at each place of an epoch; int64 of the shape of `place`."""
    return Permutation(rows.num_rows, seed, epoch, "samples")(place) if rows.shuffle else place
