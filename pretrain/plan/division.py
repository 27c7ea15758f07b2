"""How many workers share the rows of a step, where the recipe's micro-batches may not divide among them."""

from dataclasses import dataclass
from typing import Literal

from pretrain.experiment import BatchConfig

Kind = Literal["as given", "other micro-batches", "larger batch"]
"""Whether it is the recipe's own run; or another that learns from as many rows a step, cut otherwise (its noise, and so
its bits, differ); or another experiment, that learns from more rows a step than the recipe says."""


@dataclass(frozen=True, slots=True)
class Division:
    """Micro-batches that so many workers can share equally."""

    workers: int
    micro_batches: int
    rows: int
    """Of each micro-batch: no more than the recipe's, for which it was chosen."""
    kind: Kind

    @property
    def each(self) -> int:
        """Micro-batches of one worker."""
        return self.micro_batches // self.workers


def divide(batch: BatchConfig, workers: int, *, fewest_rows: int = 1) -> Division:
    """The recipe's micro-batches where they divide among the workers; else as many rows a step in others; else, where
    workers are more than rows or do not divide them, as few rows more as will do.

    >>> divide(BatchConfig(micro_batches=16, rows=8), 64)
    Division(workers=64, micro_batches=64, rows=2, kind='other micro-batches')
    """
    if batch.micro_batches % workers == 0:
        return Division(workers, batch.micro_batches, batch.rows, "as given")
    in_all = batch.micro_batches * batch.rows
    if in_all % workers == 0:
        rows = _largest_divisor(in_all // workers, fewest_rows, batch.rows)
        if rows is not None:
            return Division(workers, in_all // rows, rows, "other micro-batches")
    each = max(-(-in_all // workers), fewest_rows)
    while (rows := _largest_divisor(each, fewest_rows, batch.rows)) is None:
        each += 1
    return Division(workers, workers * each // rows, rows, "larger batch")


def _largest_divisor(number: int, least: int, most: int) -> int | None:
    return next((divisor for divisor in range(min(most, number), least - 1, -1) if number % divisor == 0), None)
