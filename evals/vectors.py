"""Objectives of models of independent vectors (images) over a split: every vector once, with noise from a fixed seed.

The noise of a batch depends on its number, so the result depends on `rows`, but not on the number of workers.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from data_pipeline.batch import VectorBatch
from data_pipeline.config import BadInput
from data_pipeline.data import DataConfig
from data_pipeline.streams.vectors import Vectors
from data_pipeline.vector_data import VectorData
from evals.language_model import ALONE
from pretrain.contract import Carry, Loss
from pretrain.group import Group
from pretrain.rng import seed_everything

VectorScore = Callable[[VectorBatch, Carry | None], Loss]


@dataclass(frozen=True, slots=True)
class ObjectiveScore:
    """Means over a split; equal on every worker."""

    means: dict[str, float]
    """`objective`, and the model's own metrics."""
    count: int


def open_vectors(data: DataConfig, split: str) -> Vectors:
    """BadInput for data that is no vectors, or has no such split."""
    if isinstance(data, VectorData):
        return data.vectors(split).fixed()
    raise BadInput(f"data.kind {data.kind} has no vectors to score")


def score_vectors(
    score: VectorScore,
    vectors: Vectors,
    *,
    rows: int,
    seed: int,
    new_carry: Callable[[int], Carry | None],
    group: Group = ALONE,
) -> ObjectiveScore:
    """Collective: every worker of `group` scores every `world_size`-th batch, and all score equally often."""
    if rows < 1:
        raise BadInput(f"rows is {rows}; it must be at least 1")
    starts = list(range(0, len(vectors.labels), rows))
    share = range(group.rank, len(starts), group.world_size)
    most = -(-len(starts) // group.world_size)
    sums: dict[str, float] = {}
    for turn in range(most):
        number = share[turn] if turn < len(share) else 0
        seed_everything(seed, "evaluate", number)
        batch = batch_of(vectors, starts[number], rows)
        loss = score(batch, new_carry(batch.rows))
        for name, value in {"objective": loss.total, **loss.metrics}.items():
            sums[name] = sums.get(name, 0.0) + (float(value) if turn < len(share) else 0.0)
    names = sorted(sums)
    summed = group.all_reduce_sum(torch.tensor([sums[name] for name in names], dtype=torch.float64))
    count = len(vectors.labels)
    return ObjectiveScore(dict(zip(names, (summed / count).tolist(), strict=True)), count)


def batch_of(vectors: Vectors, start: int, rows: int) -> VectorBatch:
    """The rows from `start` on."""
    chosen = slice(start, start + rows)
    labels_R = torch.from_numpy(vectors.labels[chosen])
    ids_R = torch.arange(start, start + len(labels_R))
    return VectorBatch(torch.from_numpy(vectors.rows(chosen)), labels_R, ids_R)
