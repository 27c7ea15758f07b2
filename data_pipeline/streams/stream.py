"""What the trainer draws batches from: a pure function of the place in the run, whoever asks and in whatever order.

A *draw* is one global batch: micro_batches G times rows R per micro-batch. Draws are numbered from the run's beginning
and go on through the epochs; each epoch has `draws_per_epoch` of them, and what is too short for one more is left out.
"""

from typing import Protocol, runtime_checkable

import numpy as np
from pydantic import Field

from data_pipeline.batch import Batch
from data_pipeline.config import BadInput, Config


class Draws(Config):
    """How a run cuts its data in batches."""

    micro_batches: int = Field(gt=0)
    """G: micro-batches of a draw."""
    rows: int = Field(gt=0)
    """R: rows of a micro-batch."""
    seed: int = 0
    """Of the order of the documents, samples or rows."""

    @property
    def total(self) -> int:
        """G * R: the rows of one draw."""
        return self.micro_batches * self.rows

    def rows_of(self, draw: int, micro_batch: int) -> np.ndarray:
        """[R] int64: which rows of the draw the micro-batch has; ValueError for a place outside the run."""
        if draw < 0 or not 0 <= micro_batch < self.micro_batches:
            raise ValueError(
                f"draw {draw}, micro_batch {micro_batch}: draws start at 0, and each has {self.micro_batches}"
            )
        return np.arange(micro_batch * self.rows, (micro_batch + 1) * self.rows)


@runtime_checkable
class Stream(Protocol):
    """Batches by place."""

    @property
    def draws_per_epoch(self) -> int:
        """Draws until every document, sample or row has been seen once (but for the tail that fills no draw)."""

    def micro_batch(self, draw: int, micro_batch: int) -> Batch:
        """The rows of one micro-batch of one draw: equal arguments give equal tensors."""

    def fingerprint(self) -> dict[str, str | int]:
        """What the batches depend on: streams with equal fingerprints give equal batches."""


def no_whole_draw(unit: str, available: int, needed: int, draws: Draws, length: int | None = None) -> BadInput:
    """The error for data that cannot fill one draw."""
    sizes = f"micro_batches {draws.micro_batches} x rows {draws.rows}" + (f" x length {length}" if length else "")
    return BadInput(
        f"the split has {available} {unit}, but one draw of {sizes} needs at least {needed}; "
        "use more data, or make one of these sizes smaller"
    )
