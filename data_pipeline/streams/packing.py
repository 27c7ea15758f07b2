"""Whole documents packed into rows, so that none is cut that fits: best fit, the longest first.

Ding et al. 2024 (https://arxiv.org/abs/2404.10830): a document longer than a row is cut in whole rows and a rest; then
each piece, the longest first, goes into the fullest row that has room for it. What no piece fills is padding, which no
loss counts. Pieces of equal length are dealt together, so that the packing takes time by lengths and not by documents.

Within a row each document has ages of its own (block-diagonal attention). A token's label is the token after it in its
document; of a document's last token it is the first of the next document in the row, as in rows that are cut. It is
`IGNORED` where the row has padding next, or the rest of a longer document.

Legend: D documents, P pieces, R rows, L positions of a row, K pieces within the rows that are read.
"""

from bisect import bisect_left, insort
from functools import cached_property
from typing import Literal

import numpy as np
import torch

from data_pipeline.batch import IGNORED, TokenBatch
from data_pipeline.config import BadInput
from data_pipeline.streams.spans import Documents, laid_out

Packing = Literal["cut", "best_fit"]
"""Documents end to end, cut every L tokens; or as above."""
FILLER = 0
"""The token that stands where there is none."""


def best_fit(lengths_P: np.ndarray, capacity: int) -> tuple[np.ndarray, int]:
    """[P] int64: the row of each piece, by best fit decreasing; and how many rows there are.

    Lengths are 1 .. capacity.
    """
    row_P = np.empty(len(lengths_P), dtype=np.int64)
    order_P = np.argsort(-lengths_P, kind="stable")
    found, firsts = np.unique(-lengths_P[order_P], return_index=True)
    ends = [*firsts[1:].tolist(), len(order_P)]
    room = _Room()
    num_rows = 0
    for length, begin, end in zip((-found).tolist(), firsts.tolist(), ends, strict=True):
        while begin < end:
            taken = room.take(length)
            if taken is None:
                each = capacity // length
                opened = -(-(end - begin) // each)
                taken = np.arange(num_rows, num_rows + opened), capacity
                num_rows += opened
            begin += _deal(row_P, order_P[begin:end], taken, length, room)
    return row_P, num_rows


class _Room:
    """Rows by the room that is left in them."""

    def __init__(self) -> None:
        self._sizes: list[int] = []
        self._rows: dict[int, list[np.ndarray]] = {}

    def take(self, least: int) -> tuple[np.ndarray, int] | None:
        """All rows of the least room that suffices, and that room; they are to be put back."""
        place = bisect_left(self._sizes, least)
        if place == len(self._sizes):
            return None
        size = self._sizes.pop(place)
        return np.concatenate(self._rows.pop(size)), size

    def put(self, rows: np.ndarray, size: int) -> None:
        if len(rows) == 0 or size == 0:
            return
        if size not in self._rows:
            insort(self._sizes, size)
        self._rows.setdefault(size, []).append(rows)


def _deal(row_P: np.ndarray, pieces: np.ndarray, taken: tuple[np.ndarray, int], length: int, room: _Room) -> int:
    """Deal pieces of one length to rows of equal room, row after row as many as fit; returns how many were dealt."""
    rows, size = taken
    each = size // length
    dealt = min(len(pieces), each * len(rows))
    full, more = divmod(dealt, each)
    row_P[pieces[:dealt]] = np.repeat(rows[: full + 1], each)[:dealt]
    room.put(rows[:full], size - each * length)
    if more:
        room.put(rows[full : full + 1], size - more * length)
    room.put(rows[full + (more > 0) :], size)
    return dealt


class PackedRows:
    """Rows of whole documents. Keeps four int64 per piece; the same rows in every epoch, in another order."""

    def __init__(
        self, documents: Documents, *, length: int, seed: int, shuffle: bool = True, separate_documents: bool = True
    ) -> None:
        """A row's id is epoch * rows + its number. Without `separate_documents` ages count from the row's start.

        A row in which no token has a label is left out: one of single tokens, each the rest of a document or before
        one. BadInput where `length` is 1.
        """
        del seed  # which documents share a row is a function of their lengths alone
        if length < 2:
            raise BadInput(f"length {length}: data.packing best_fit needs rows of 2 tokens or more; use packing=cut")
        self._documents, self._length, self.shuffle = documents, length, shuffle
        self._separate = separate_documents
        self._lay_out(documents.lengths)
        self.num_rows = len(self._first_R) - 1

    def _lay_out(self, lengths_D: np.ndarray) -> None:
        """The pieces, by row and then in the order of the corpus."""
        pieces_D = -(-lengths_D // self._length)
        document_P = np.repeat(np.arange(len(lengths_D)), pieces_D)
        offset_P = laid_out(np.zeros_like(pieces_D), pieces_D) * self._length
        length_P = np.minimum(lengths_D[document_P] - offset_P, self._length)
        row_P, _ = best_fit(length_P, self._length)
        order_P = np.argsort(row_P, kind="stable")
        order_P = order_P[_have_labels(row_P[order_P], length_P[order_P], offset_P[order_P])]
        self._document_P, self._offset_P, self._length_P = document_P[order_P], offset_P[order_P], length_P[order_P]
        self._first_R = np.concatenate([[0], np.cumsum(np.unique(row_P[order_P], return_counts=True)[1])])
        ends_P = np.cumsum(self._length_P)
        starts_P = ends_P - self._length_P
        self._column_P = starts_P - np.repeat(starts_P[self._first_R[:-1]], np.diff(self._first_R))

    @cached_property
    def filled(self) -> float:
        """Share of the positions that hold tokens."""
        return int(self._length_P.sum()) / ((len(self._first_R) - 1) * self._length)

    def batch(self, epoch: int, row_R: np.ndarray) -> TokenBatch:
        counts_R = self._first_R[row_R + 1] - self._first_R[row_R]
        piece_K, place_K = laid_out(self._first_R[row_R], counts_R), np.repeat(np.arange(len(row_R)), counts_R)
        document_K, offset_K = self._document_P[piece_K], self._offset_P[piece_K]
        length_K, column_K = self._length_P[piece_K], self._column_P[piece_K]
        goes_on_K = offset_K + length_K < self._documents.lengths[document_K]
        read_K = length_K + goes_on_K  # the label of the last token is in the next row
        begin_K = place_K * (self._length + 1) + column_K
        whole = np.full(len(row_R) * (self._length + 1), -1, dtype=np.int64)
        whole[laid_out(begin_K, read_K)] = self._documents.read(document_K, offset_K, read_K)
        whole_RL = whole.reshape(len(row_R), self._length + 1)
        labels_RL = whole_RL[:, 1:].copy()
        labels_RL[labels_RL < 0] = IGNORED
        is_rest_K = (offset_K > 0) & (column_K > 0)
        labels_RL[place_K[is_rest_K], column_K[is_rest_K] - 1] = IGNORED
        return TokenBatch(
            inputs=torch.from_numpy(np.maximum(whole_RL[:, :-1], FILLER)),
            labels=torch.from_numpy(labels_RL),
            age=torch.from_numpy(self._ages(place_K, column_K, length_K, len(row_R))),
            sample_ids=torch.from_numpy(epoch * self.num_rows + row_R),
        )

    def _ages(self, place_K: np.ndarray, column_K: np.ndarray, length_K: np.ndarray, num_rows: int) -> np.ndarray:
        """[R, L]; padding sees itself alone."""
        ages = np.zeros(num_rows * self._length, dtype=np.int64)
        first_K = np.zeros_like(column_K) if self._separate else column_K
        ages[laid_out(place_K * self._length + column_K, length_K)] = laid_out(first_K, length_K)
        return ages.reshape(num_rows, self._length)

    def fingerprint(self) -> dict[str, str | int]:
        return {
            "data": self._documents.fingerprint,
            "shuffle": int(self.shuffle),
            "separate_documents": int(self._separate),
            "packing": "best_fit",
        }


def _have_labels(row_P: np.ndarray, length_P: np.ndarray, offset_P: np.ndarray) -> np.ndarray:
    """[P] bool, of pieces in the order of their rows: whether some token of the row has a label."""
    follows_P = np.concatenate([row_P[1:] == row_P[:-1], [False]])  # a piece in the same row
    begins_P = np.concatenate([offset_P[1:] == 0, [False]])  # and it is no rest
    labelled = np.bincount(row_P, weights=(length_P > 1) | (follows_P & begins_P)) > 0
    found: np.ndarray = labelled[row_P]
    return found
