"""The documents of an epoch end to end: from a stretch of positions to its tokens and their ages.

Legend: D documents, R rows, L positions of a segment, K stretches of documents within the rows.
"""

from functools import lru_cache

import numpy as np
import torch

from data_pipeline.batch import TokenBatch
from data_pipeline.streams.permutation import Permutation
from data_pipeline.streams.spans import Documents


class Concatenation:
    """Documents in a given order, end to end. Keeps two int64 per document."""

    def __init__(self, documents: Documents, order_D: np.ndarray) -> None:
        self._documents, self._order_D = documents, order_D
        self._ends_D = np.cumsum(documents.lengths[order_D])

    def read(self, starts_R: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The tokens [R, length] from each start on, and the stretches that they are of: [K] their row, the position
        at which their document starts, and their tokens in the row."""
        first_R = np.searchsorted(self._ends_D, starts_R, side="right")
        counts_R = np.searchsorted(self._ends_D, starts_R + (length - 1), side="right") - first_R + 1
        row_K = np.repeat(np.arange(len(starts_R)), counts_R)
        place_K = np.arange(len(row_K)) + np.repeat(first_R - (np.cumsum(counts_R) - counts_R), counts_R)
        document_K, end_K, row_start_K = self._order_D[place_K], self._ends_D[place_K], starts_R[row_K]
        document_start_K = end_K - self._documents.lengths[document_K]
        begin_K = np.maximum(document_start_K, row_start_K)
        length_K = np.minimum(end_K, row_start_K + length) - begin_K
        tokens = self._documents.read(document_K, begin_K - document_start_K, length_K)
        return tokens.reshape(len(starts_R), length), row_K, document_start_K, length_K


class Epochs:
    """The concatenation of every epoch; the last two asked for are kept."""

    def __init__(self, documents: Documents, *, seed: int, shuffle: bool, separate_documents: bool) -> None:
        """With `shuffle` each epoch has its own order; with `separate_documents` ages count from a document's start."""
        self.num_tokens = int(documents.lengths.sum())
        self._documents, self._seed = documents, seed
        self.shuffle, self._separate = shuffle, separate_documents
        self._concatenation = lru_cache(maxsize=2)(self._concatenate)

    def batch(self, epoch: int, starts_R: np.ndarray, length: int, *, age_from_R: np.ndarray) -> TokenBatch:
        """Rows of `length` tokens from each start on. Ages count from `age_from_R`, or a later start of a document.

        A row's id is epoch * num_tokens + its start.
        """
        token_RL, row_K, document_start_K, length_K = self._concatenation(epoch).read(starts_R, length + 1)
        age_RL = starts_R[:, None] + np.arange(length)
        if self._separate:
            since_K = np.maximum(document_start_K, age_from_R[row_K])
            age_RL -= np.repeat(since_K, length_K).reshape(len(starts_R), length + 1)[:, :-1]
        else:
            age_RL -= age_from_R[:, None]
        whole_RL = torch.from_numpy(token_RL)
        return TokenBatch(
            inputs=whole_RL[:, :-1].contiguous(),
            labels=whole_RL[:, 1:].contiguous(),
            age=torch.from_numpy(age_RL),
            sample_ids=torch.from_numpy(epoch * self.num_tokens + starts_R),
        )

    def fingerprint(self) -> dict[str, str | int]:
        return {
            "data": self._documents.fingerprint,
            "shuffle": int(self.shuffle),
            "separate_documents": int(self._separate),
        }

    def _concatenate(self, epoch: int) -> Concatenation:
        order_D = np.arange(len(self._documents.lengths))
        if self.shuffle:
            order_D = Permutation(len(order_D), self._seed, epoch, "documents")(order_D)
        return Concatenation(self._documents, order_D)
