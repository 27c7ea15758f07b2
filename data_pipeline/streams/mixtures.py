"""Rows of several sources in one batch: row k of a source is its k-th, whatever the weights were and are.

A row's id is its source's number (in alphabetical order) times 2**44, plus k.

Legend: R rows of a micro-batch, S sources.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import lru_cache

import numpy as np
import torch

from data_pipeline.batch import TokenBatch
from data_pipeline.config import BadInput
from data_pipeline.streams.apportionment import Apportionment, Schedule
from data_pipeline.streams.lanes import LaneStream
from data_pipeline.streams.rows import Rows, in_order
from data_pipeline.streams.samples import DRAWS_AT_ONCE
from data_pipeline.streams.stream import Draws

IDS_OF_A_SOURCE = 1 << 44

Stages = Sequence[tuple[int, Mapping[str, int]]]
"""(first draw, whole numbers in proportion to the weights), the first at draw 0."""


def source_of(sample_id: int) -> tuple[int, int]:
    """The source's number and the row's number in it, of an id."""
    return divmod(sample_id, IDS_OF_A_SOURCE)


class MixtureStream:
    """Independent rows; the weights may change at a draw."""

    def __init__(self, sources: Mapping[str, Rows], stages: Stages, *, length: int, draws: Draws) -> None:
        """Sources in alphabetical order. BadInput if one that has a weight has no row."""
        self._names, self._rows = tuple(sources), tuple(sources.values())
        weighted = {name for _, numbers in stages for name in numbers}
        for name, rows in sources.items():
            if name in weighted and rows.num_rows < 1:
                raise BadInput(
                    f"data.sources.{name}: has too few tokens for one row of {length}; give it more, or leave it out"
                )
        self._stages, self._length, self._draws = stages, length, draws
        in_rows = [(first * draws.total, numbers) for first, numbers in stages]
        self.schedule = Schedule(in_rows, self._names, draws.seed)
        self._block = lru_cache(maxsize=2 * draws.micro_batches)(self._place_block)

    @property
    def draws_per_epoch(self) -> int:
        """Draws until every source that the last weights have was read through once."""
        wanted = [(self._names.index(name)) for name in self._stages[-1][1]]

        def is_through(draws: int) -> bool:
            counts = self.schedule.counts(draws * self._draws.total)
            return all(counts[source] >= self._rows[source].num_rows for source in wanted)

        return _first(is_through)

    def micro_batch(self, draw: int, micro_batch: int) -> TokenBatch:
        self._draws.rows_of(draw, micro_batch)  # refuses places outside of the run
        block, within = divmod(draw, DRAWS_AT_ONCE)
        source, number, row = (part[within] for part in self._block(block, micro_batch))
        parts = []
        for one in np.unique(source):
            where = np.flatnonzero(source == one)
            rows = self._rows[one]
            epoch_R = number[where] // rows.num_rows
            for epoch in np.unique(epoch_R):
                here = where[epoch_R == epoch]
                parts.append((here, rows.batch(int(epoch), row[here])))
        return gathered(parts, source * IDS_OF_A_SOURCE + number)

    def fingerprint(self) -> dict[str, str | int]:
        return {
            "reads": "mixture of samples",
            "length": self._length,
            **self._draws.model_dump(),
            "weights": json.dumps([[first, dict(numbers)] for first, numbers in self._stages]),
            **{f"data.sources.{n}": json.dumps(r.fingerprint()) for n, r in zip(self._names, self._rows, strict=True)},
        }

    def _place_block(self, block: int, micro_batch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """[draws of the block, R] each: the source of each row, its number in it, and which row of its epoch it is."""
        draw = np.arange(block * DRAWS_AT_ONCE, (block + 1) * DRAWS_AT_ONCE)
        row = draw[:, None] * self._draws.total + self._draws.rows_of(0, micro_batch)
        source, number = self.schedule.place(row.ravel())
        chosen = np.empty_like(number)
        for one in np.unique(source):
            where = np.flatnonzero(source == one)
            rows = self._rows[one]
            epoch, place = np.divmod(number[where], rows.num_rows)
            for each in np.unique(epoch):
                chosen[where[epoch == each]] = in_order(rows, self._draws.seed, int(each), place[epoch == each])
        return source.reshape(row.shape), number.reshape(row.shape), chosen.reshape(row.shape)


class MixtureLanes:
    """Lanes, each of one source for the whole run: a row's memory is of what it reads."""

    def __init__(
        self,
        lanes: Mapping[str, Callable[[int], LaneStream]],
        numbers: Mapping[str, int],
        *,
        length: int,
        draws: Draws,
    ) -> None:
        """`lanes` makes a source's stream of so many lanes. BadInput where a source's weight gives it none."""
        self._names, self._draws, self._length, self._numbers = tuple(lanes), draws, length, dict(numbers)
        apportioned = Apportionment(numbers, self._names, None)
        self._source, self._lane = apportioned.place(np.arange(draws.total))
        self.counts = apportioned.counts(draws.total)
        missing = [name for name in numbers if not self.counts[self._names.index(name)]]
        if missing:
            raise BadInput(
                f"data.weights: of {draws.total} lanes, {missing[0]} gets none for its weight; raise it, "
                "batch.rows or batch.micro_batches"
            )
        self._streams = {
            source: make(int(count))
            for source, (make, count) in enumerate(zip(lanes.values(), self.counts, strict=True))
            if count
        }

    @property
    def draws_per_epoch(self) -> int:
        """Draws until every source was read through once."""
        return max(stream.draws_per_epoch for stream in self._streams.values())

    def micro_batch(self, draw: int, micro_batch: int) -> TokenBatch:
        row_R = self._draws.rows_of(draw, micro_batch)
        source_R, lane_R = self._source[row_R], self._lane[row_R]
        parts = []
        for source in np.unique(source_R):
            here = np.flatnonzero(source_R == source)
            parts.append((here, self._streams[int(source)].lanes(draw, lane_R[here])))
        return gathered(parts, source_R * IDS_OF_A_SOURCE + draw * self.counts[source_R] + lane_R)

    def fingerprint(self) -> dict[str, str | int]:
        return {
            "reads": "mixture of lanes",
            "length": self._length,
            **self._draws.model_dump(),
            "weights": json.dumps([[0, self._numbers]]),
            **{f"data.sources.{self._names[s]}": json.dumps(one.fingerprint()) for s, one in self._streams.items()},
        }


def gathered(parts: Sequence[tuple[np.ndarray, TokenBatch]], ids_R: np.ndarray) -> TokenBatch:
    """One batch of parts, each with the places of its rows."""
    places = torch.from_numpy(np.concatenate([where for where, _ in parts]))
    made = {}
    for name in (field.name for field in fields(TokenBatch) if field.name != "sample_ids"):
        values = torch.cat([getattr(batch, name) for _, batch in parts])
        made[name] = torch.empty_like(values).index_copy_(0, places, values)
    return TokenBatch(sample_ids=torch.from_numpy(ids_R.astype(np.int64)), **made)


def _first(holds: Callable[[int], bool]) -> int:
    """The least number of which it holds; it holds of all larger ones."""
    high = 1
    while not holds(high):
        high *= 2
    low = high // 2
    while low + 1 < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
