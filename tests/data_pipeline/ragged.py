"""Documents of different lengths in memory, for tests of streams."""

import hashlib
from collections.abc import Sequence

import numpy as np

from data_pipeline.streams.spans import laid_out


class RaggedDocuments:
    """Token i of all documents together is the number i, so that a token says where it comes from."""

    def __init__(self, lengths: Sequence[int]) -> None:
        self.lengths = np.array(lengths, dtype=np.int64)
        self._starts = np.cumsum(self.lengths) - self.lengths

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(self.lengths.tobytes()).hexdigest()

    def tokens_at(self, documents: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        assert (offsets >= 0).all()
        assert (offsets < self.lengths[documents]).all()
        tokens: np.ndarray = self._starts[documents] + offsets
        return tokens

    def read(self, documents_K: np.ndarray, offsets_K: np.ndarray, lengths_K: np.ndarray) -> np.ndarray:
        assert (lengths_K > 0).all()
        assert (offsets_K + lengths_K <= self.lengths[documents_K]).all()
        return laid_out(self._starts[documents_K] + offsets_K, lengths_K)

    def document_of(self, tokens: np.ndarray) -> np.ndarray:
        """Which document each token is in."""
        return np.searchsorted(self._starts, tokens, side="right") - 1

    def offset_of(self, tokens: np.ndarray) -> np.ndarray:
        """The place of each token in its document."""
        offsets: np.ndarray = tokens - self._starts[self.document_of(tokens)]
        return offsets
