"""Independent feature vectors held in memory, in a permuted order each epoch.

Legend: N vectors, D features, R rows of a micro-batch. A draw has the next G * R of the epoch's order; each epoch
leaves out the N mod (G * R) vectors that fill no draw, others each time.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from data_pipeline.batch import VectorBatch
from data_pipeline.mixing import keys, mix, uniform
from data_pipeline.streams.permutation import Permutation
from data_pipeline.streams.stream import Draws, no_whole_draw

HASHED_AT_ONCE = 4096
"""Rows."""


@dataclass(frozen=True, slots=True)
class Vectors:
    """A data set that fits in memory."""

    stored: np.ndarray
    """[N, D] float32; or uint8, of which `most` is 1."""
    labels: np.ndarray
    """[N] int64: the class, or `IGNORED`."""
    dynamic: bool = False
    """Values are probabilities of a one, which is drawn anew in each epoch."""
    most: int = 1
    """What a stored byte is divided by."""

    def rows(self, chosen: np.ndarray | slice) -> np.ndarray:
        """[R, D] float32 values of the chosen rows."""
        part_RD: np.ndarray = self.stored[chosen]
        return part_RD.astype(np.float32) / np.float32(self.most) if part_RD.dtype == np.uint8 else part_RD

    @property
    def values(self) -> np.ndarray:
        """[N, D] float32 of all rows; made anew where bytes are stored."""
        return self.rows(slice(None))

    @property
    def fingerprint(self) -> str:
        """SHA-256 over values and labels."""
        digest = hashlib.sha256(repr(self.stored.shape).encode() + b"dynamic" * self.dynamic)
        for begin in range(0, len(self.stored), HASHED_AT_ONCE):
            part_RD = self.rows(slice(begin, begin + HASHED_AT_ONCE))
            digest.update(np.ascontiguousarray(part_RD, dtype="<f4").tobytes())
        digest.update(np.ascontiguousarray(self.labels, dtype="<i8").tobytes())
        return digest.hexdigest()

    def fixed(self) -> "Vectors":
        """The same with one draw of what is drawn anew, as for scores."""
        return Vectors(binary_draw(self.values, "held out"), self.labels) if self.dynamic else self


def binary_draw(values_ND: np.ndarray, *path: int | str, rows: np.ndarray | None = None) -> np.ndarray:
    """[N, D] float32 ones with the probabilities `values_ND`: a function of `path`, row (0 .. N - 1, if not given) and
    column."""
    numbers_N = np.arange(len(values_ND)) if rows is None else rows
    num_values = values_ND.shape[1]
    places_ND = numbers_N.astype(np.uint64)[:, None] * np.uint64(num_values) + np.arange(num_values, dtype=np.uint64)
    drawn: np.ndarray = (uniform(mix(places_ND, keys(1, "binary", *path)[0])) < values_ND).astype(np.float32)
    return drawn


class VectorStream:
    """Batches of vectors; a row's id is epoch * N + its number in the data set."""

    def __init__(self, vectors: Vectors, *, draws: Draws) -> None:
        """BadInput if there are fewer vectors than rows in one draw."""
        self._vectors, self._draws, self._num_vectors = vectors, draws, len(vectors.labels)
        if self._num_vectors < draws.total:
            raise no_whole_draw("vectors", self._num_vectors, draws.total, draws)

    @property
    def draws_per_epoch(self) -> int:
        return self._num_vectors // self._draws.total

    def micro_batch(self, draw: int, micro_batch: int) -> VectorBatch:
        epoch, number = divmod(draw, self.draws_per_epoch)
        place_R = self._draws.rows_of(draw, micro_batch) + number * self._draws.total
        row_R = Permutation(self._num_vectors, self._draws.seed, epoch, "vectors")(place_R)
        values_RD = self._vectors.rows(row_R)
        if self._vectors.dynamic:
            values_RD = binary_draw(values_RD, self._draws.seed, epoch, rows=row_R)
        return VectorBatch(
            values=torch.from_numpy(values_RD),
            labels=torch.from_numpy(self._vectors.labels[row_R]),
            sample_ids=torch.from_numpy(epoch * self._num_vectors + row_R),
        )

    def fingerprint(self) -> dict[str, str | int]:
        return {"reads": "vectors", "data": self._hash, **self._draws.model_dump()}

    @cached_property
    def _hash(self) -> str:
        """Once: every save asks."""
        return self._vectors.fingerprint
