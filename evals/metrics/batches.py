"""Rows that come in batches of any size.

Shape legend: R rows of a batch, N all rows.
"""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from data_pipeline.config import BadInput

Rows = Tensor | Iterable[Tensor]
"""All rows as one tensor [N, ...], or batches [R, ...] of them in order."""


def batches_of(rows: Rows) -> Iterator[Tensor]:
    """Each batch, detached."""
    for batch in [rows] if isinstance(rows, Tensor) else rows:
        yield batch.detach()


def all_rows(rows: Rows, name: str) -> Tensor:
    """[N, ...] float64 on the CPU; BadInput for no rows or a number that is none."""
    batches = [batch.to("cpu", torch.float64) for batch in batches_of(rows)]
    gathered = torch.cat(batches) if batches else torch.empty(0)
    if len(gathered) == 0:
        raise BadInput(f"{name}: no rows; a metric needs at least one")
    if bool(gathered.isnan().any()):
        row = int(gathered.flatten(1).isnan().any(-1).nonzero()[0]) if gathered.ndim > 1 else _first_nan(gathered)
        raise BadInput(f"{name}: row {row} is not a number; the model overflowed or divided by zero there")
    return gathered


def _first_nan(values_N: Tensor) -> int:
    return int(values_N.isnan().nonzero()[0])


def in_blocks(rows: Rows, size: int) -> Iterator[Tensor]:
    """The same rows in blocks of `size` (the last may be shorter), however they came: block sums have equal bits."""
    waiting: list[Tensor] = []
    held = 0
    for batch in batches_of(rows):
        waiting.append(batch)
        held += len(batch)
        if held >= size:
            joined = torch.cat(waiting)
            whole = held - held % size
            yield from joined[:whole].split(size)
            waiting, held = [joined[whole:]], held - whole
    if held:
        yield torch.cat(waiting)
