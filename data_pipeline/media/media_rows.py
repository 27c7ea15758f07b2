"""Rows of vectors that are decoded out of prepared media when they are asked for.

Legend: N rows, R chosen rows, D values of one.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np

from data_pipeline.batch import IGNORED
from data_pipeline.config import BadInput, Corrupt
from data_pipeline.media.media_shards import MediaShards
from data_pipeline.media.tar_writer import NO_LABEL
from data_pipeline.streams.vectors import Vectors

Decode = Callable[[int], np.ndarray]
"""[D] of the row of this number; OSError, RuntimeError or ValueError where its bytes are damaged."""
Finish = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Of decoded rows [R, D] and their numbers [R]: float32, or uint8 that `Vectors.most` divides."""


class DecodedRows:
    """What `Vectors` asks of an array [N, D]."""

    def __init__(self, shape: tuple[int, int], decode: Decode, finish: Finish) -> None:
        self.shape, self._decode, self._finish = shape, decode, finish

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, chosen: np.ndarray | slice) -> np.ndarray:
        number_R = np.arange(len(self))[chosen]
        if not len(number_R):
            return np.zeros((0, self.shape[1]), dtype=np.float32)
        return self._finish(np.stack([self._decode(int(number)) for number in number_R]), number_R)


@dataclass(frozen=True, slots=True)
class MediaVectors(Vectors):
    """Vectors whose `stored` decodes what is asked for, known by the hashes of the tars."""

    known: str = ""

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the manifest's hashes, and how they are read."""
        return self.known


def media_vectors(
    shards: MediaShards,
    item_N: np.ndarray,
    decode: Callable[[int, int], np.ndarray],
    finish: Finish,
    *,
    num_values: int,
    reading: str,
    dynamic: bool = False,
    most: int = 1,
) -> Vectors:
    """Row n is `decode(item_N[n], k)` of [D], the k-th row of its item; `reading` says how, for the fingerprint."""
    first_N = np.searchsorted(item_N, item_N)

    def decode_row(number: int) -> np.ndarray:
        item = int(item_N[number])
        try:
            row_D = decode(item, int(number - first_N[number]))
        except BadInput:
            raise
        except (OSError, RuntimeError, ValueError, EOFError, SyntaxError) as error:
            raise shards.damaged(item, error) from error
        if row_D.shape != (num_values,):
            raise shards.damaged(item, Corrupt(f"{list(row_D.shape)} values instead of {num_values}"))
        return row_D

    rows = DecodedRows((len(item_N), num_values), decode_row, finish)
    labels_N = shards.labels[item_N]
    known = hashlib.sha256(f"{shards.fingerprint}{reading}".encode()).hexdigest()
    return MediaVectors(
        stored=cast(np.ndarray, rows),
        labels=np.where(labels_N == NO_LABEL, IGNORED, labels_N),
        dynamic=dynamic,
        most=most,
        known=known,
    )


def windows_of(lengths_N: np.ndarray, window: int) -> np.ndarray:
    """The item of each window of this length, from each item's beginning; what is left at its end is left out."""
    return np.repeat(np.arange(len(lengths_N)), lengths_N // window)
