"""Of documents with an equal key, and of those connected so through others, the first in the corpus's order stays.

Workers leave, for each piece, `keys` [bands, words, documents] uint64, each band in ascending order, and `positions`
[bands, documents] uint32 beside it. Here the pieces are merged: one range of keys at a time, in any worker, which gives
pairs of documents; a union-find over all of them gives each set's first. Memory: some 60 bytes for each key of a range
in a worker, and in the driver 8 for each document of the corpus.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from data_pipeline.steps.step import Signatures

if TYPE_CHECKING:
    from data_pipeline.prepare.executor import Executor

RANGE_KEYS = 1 << 22
"""Keys in one range, about; more only where one key is so frequent."""


def sorted_keys(keys: np.ndarray, positions: Sequence[int]) -> dict[str, np.ndarray]:
    """The arrays of a piece out of its documents' keys [documents, bands, words], in order."""
    keys_KWN = np.ascontiguousarray(keys.transpose(1, 2, 0))
    numbers = np.asarray(positions, dtype=np.uint32)
    orders = [np.lexsort((numbers, *band[::-1])) for band in keys_KWN]
    in_order = [band[:, order] for band, order in zip(keys_KWN, orders, strict=True)]
    return {"keys": np.stack(in_order), "positions": np.stack([numbers[order] for order in orders])}


@dataclass(frozen=True, slots=True)
class RangeTask:
    """The keys of one band whose first word is in [low, high]."""

    signatures: Signatures
    band: int
    low: int
    high: int


def dropped_copies(signatures: Signatures, num_bands: int, executor: "Executor") -> np.ndarray:
    """[documents] bool: all but the first of each set."""
    parent_N = np.arange(signatures.num_documents, dtype=np.int64)
    num_ranges = -(-signatures.num_documents // RANGE_KEYS) or 1
    edges = [(1 << 64) * number // num_ranges for number in range(num_ranges + 1)]
    tasks = [
        RangeTask(signatures, band, edges[number], edges[number + 1] - 1)
        for band in range(num_bands)
        for number in range(num_ranges)
    ]
    for pairs_E2 in executor.map(equal_pairs, tasks):
        unite(parent_N, pairs_E2)
    dropped: np.ndarray = parent_N != np.arange(len(parent_N))
    return dropped


def equal_pairs(task: RangeTask) -> np.ndarray:
    """[pairs, 2] int64: the first document with each key, and each further one."""
    keys, numbers = [], []
    offsets = task.signatures.listing.offsets
    arrays = zip(task.signatures.arrays("keys"), task.signatures.arrays("positions"), offsets, strict=False)
    for all_keys, all_positions, offset in arrays:
        band_WN = all_keys[task.band]
        start = np.searchsorted(band_WN[0], np.uint64(task.low), side="left")
        stop = np.searchsorted(band_WN[0], np.uint64(task.high), side="right")
        keys.append(np.array(band_WN[:, start:stop]))
        numbers.append(all_positions[task.band, start:stop].astype(np.int64) + offset)
    keys_WN, numbers_N = np.concatenate(keys, axis=1), np.concatenate(numbers)
    order = np.lexsort((numbers_N, *keys_WN[::-1]))
    keys_WN, numbers_N = keys_WN[:, order], numbers_N[order]
    is_first = np.ones(len(order), dtype=bool)
    is_first[1:] = (keys_WN[:, 1:] != keys_WN[:, :-1]).any(axis=0)
    firsts = numbers_N[is_first][np.cumsum(is_first) - 1]
    return np.stack([firsts[~is_first], numbers_N[~is_first]], axis=1)


def unite(parent_N: np.ndarray, pairs_E2: np.ndarray) -> None:
    """Joins the sets of each pair; a set's root is its least member, whatever the order of the pairs."""
    left, right = pairs_E2[:, 0], pairs_E2[:, 1]
    while len(left):
        left, right = _roots(parent_N, left), _roots(parent_N, right)
        apart = left != right
        left, right = left[apart], right[apart]
        np.minimum.at(parent_N, np.maximum(left, right), np.minimum(left, right))


def _roots(parent_N: np.ndarray, nodes: np.ndarray) -> np.ndarray:
    """The set's least member of each; every round halves the way to it, of all nodes asked for."""
    found = parent_N[nodes]
    while ((above := parent_N[found]) != found).any():
        parent_N[nodes] = found = above
    return found
