"""Lanes for recurrent models: each row of the global batch reads one contiguous stretch of text, draw after draw.

In every epoch the N tokens of the documents, in that epoch's order, are cut in G * R lanes of (N - 1) // (G * R)
tokens. Draw d of the epoch has tokens d * L to (d + 1) * L of every lane, so a row's memory of the last draw is what
comes just before it. What is left out each epoch: of each lane the tail shorter than L, and after the last lane fewer
than G * R + 1 tokens. Labels are the next token of the concatenation, also across the ends of lanes.
"""

import numpy as np

from data_pipeline.batch import TokenBatch
from data_pipeline.streams.concatenation import Epochs
from data_pipeline.streams.spans import Documents
from data_pipeline.streams.stream import Draws, no_whole_draw


class LaneStream:
    """Batches whose row i of one draw continues row i of the draw before."""

    def __init__(
        self, documents: Documents, *, length: int, draws: Draws, shuffle: bool = True, separate_documents: bool = True
    ) -> None:
        """`length` L is the segment of one draw. BadInput if the documents have fewer than G * R * L + 1 tokens.

        An age counts from the lane's start in this epoch; with `separate_documents` from the document's start where
        that is later.
        """
        self._epochs = Epochs(documents, seed=draws.seed, shuffle=shuffle, separate_documents=separate_documents)
        self._draws, self._length = draws, length
        self._lane_length = max(self._epochs.num_tokens - 1, 0) // draws.total
        if self._lane_length < length:
            raise no_whole_draw("tokens", self._epochs.num_tokens, draws.total * length + 1, draws, length)

    @property
    def draws_per_epoch(self) -> int:
        return self._lane_length // self._length

    def micro_batch(self, draw: int, micro_batch: int) -> TokenBatch:
        return self.lanes(draw, self._draws.rows_of(draw, micro_batch))

    def lanes(self, draw: int, lane_R: np.ndarray) -> TokenBatch:
        """What some lanes read in one draw."""
        epoch, number = divmod(draw, self.draws_per_epoch)
        begin_R = lane_R * self._lane_length
        return self._epochs.batch(epoch, begin_R + number * self._length, self._length, age_from_R=begin_R)

    def fingerprint(self) -> dict[str, str | int]:
        return {"reads": "lanes", "length": self._length, **self._draws.model_dump(), **self._epochs.fingerprint()}
