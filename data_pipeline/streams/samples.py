"""Independent samples: each epoch's rows in a permuted order, G * R of them a draw.

What is left out each epoch: the rows too few for one more draw (others each time, if the order is shuffled) and, where
documents are cut, the tokens after the last row.
"""

from functools import lru_cache

import numpy as np

from data_pipeline.batch import TokenBatch
from data_pipeline.config import BadInput
from data_pipeline.streams.packing import PackedRows, Packing
from data_pipeline.streams.rows import CutRows, Rows, in_order
from data_pipeline.streams.spans import Documents
from data_pipeline.streams.stream import Draws, no_whole_draw

DRAWS_AT_ONCE = 32
"""Whose places in the order are computed together: a permutation of few numbers costs what one of many does."""


def rows_of(
    documents: Documents, *, length: int, seed: int, shuffle: bool, separate_documents: bool, packing: Packing
) -> Rows:
    """Rows of `length` tokens, by a recipe's settings."""
    kind = CutRows if packing == "cut" else PackedRows
    return kind(documents, length=length, seed=seed, shuffle=shuffle, separate_documents=separate_documents)


class SampleStream:
    """Batches whose rows have nothing to do with each other nor with the draw before."""

    def __init__(
        self,
        documents: Documents,
        *,
        length: int,
        draws: Draws,
        shuffle: bool = True,
        separate_documents: bool = True,
        packing: Packing = "cut",
    ) -> None:
        """`length` L is the tokens of a row. BadInput if the documents give fewer than G * R rows.

        Without `shuffle` documents and rows keep their order.
        """
        self._rows = rows_of(
            documents,
            length=length,
            seed=draws.seed,
            shuffle=shuffle,
            separate_documents=separate_documents,
            packing=packing,
        )
        self._draws, self._length = draws, length
        if self._rows.num_rows < draws.total:
            raise self._no_whole_draw()
        self._block = lru_cache(maxsize=2 * draws.micro_batches)(self._rows_of_block)

    @property
    def draws_per_epoch(self) -> int:
        return self._rows.num_rows // self._draws.total

    def micro_batch(self, draw: int, micro_batch: int) -> TokenBatch:
        self._draws.rows_of(draw, micro_batch)  # refuses places outside of the run
        epoch, number = divmod(draw, self.draws_per_epoch)
        block, within = divmod(number, DRAWS_AT_ONCE)
        return self._rows.batch(epoch, self._block(epoch, block, micro_batch)[within])

    def fingerprint(self) -> dict[str, str | int]:
        return {"reads": "samples", "length": self._length, **self._draws.model_dump(), **self._rows.fingerprint()}

    def _rows_of_block(self, epoch: int, block: int, micro_batch: int) -> np.ndarray:
        """[draws of the block, R]: the rows of a micro-batch in some consecutive draws of an epoch."""
        first = block * DRAWS_AT_ONCE
        numbers = np.arange(first, min(first + DRAWS_AT_ONCE, self.draws_per_epoch))
        place = numbers[:, None] * self._draws.total + self._draws.rows_of(0, micro_batch)
        return in_order(self._rows, self._draws.seed, epoch, place)

    def _no_whole_draw(self) -> BadInput:
        if isinstance(self._rows, CutRows):
            needed = self._draws.total * self._length + 1
            return no_whole_draw("tokens", self._rows.num_tokens, needed, self._draws, self._length)
        return no_whole_draw("packed rows", self._rows.num_rows, self._draws.total, self._draws)
