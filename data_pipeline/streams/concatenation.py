"""The documents of an epoch end to end: from a position to its token, its document, and its age.

Legend: D documents, R rows, L positions of a segment.
"""

from functools import lru_cache
from typing import Protocol

import numpy as np
import torch

from data_pipeline.batch import TokenBatch
from data_pipeline.streams.permutation import Permutation


class Documents(Protocol):
    """Tokenized documents in a fixed order; each is at least one token long."""

    @property
    def lengths(self) -> np.ndarray:
        """[D] int64: tokens of each document."""

    @property
    def fingerprint(self) -> str:
        """Changes when any token does."""

    def tokens_at(self, documents: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """int64 of the arguments' common shape: token `offsets[i]` of document `documents[i]`."""


class Concatenation:
    """Documents in a given order, end to end. Keeps two int64 per document."""

    def __init__(self, documents: Documents, order_D: np.ndarray) -> None:
        self._documents, self._order_D = documents, order_D
        self._ends_D = np.cumsum(documents.lengths[order_D])

    def read(self, position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For each position: its token, and the position at which its document starts; int64 of the same shape."""
        place = np.searchsorted(self._ends_D, position, side="right")
        document = self._order_D[place]
        start = self._ends_D[place] - self._documents.lengths[document]
        return self._documents.tokens_at(document, position - start), start


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
        position_RL = starts_R[:, None] + np.arange(length + 1)
        token_RL, document_start_RL = self._concatenation(epoch).read(position_RL)
        since_RL = np.maximum(document_start_RL, age_from_R[:, None]) if self._separate else age_from_R[:, None]
        age_RL = (position_RL - since_RL)[:, :-1]
        whole_RL = torch.from_numpy(token_RL)
        return TokenBatch(
            inputs=whole_RL[:, :-1].contiguous(),
            labels=whole_RL[:, 1:].contiguous(),
            age=torch.from_numpy(age_RL).contiguous(),
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
