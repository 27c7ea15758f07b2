"""The objective of models of pairs over a split: every pair once, padded with its neighbours, with noise from a seed.

Sums do not depend on how many workers share the batches, and on `rows` only by rounding, where the objective draws
nothing, as models do outside of training.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from data_pipeline.batch import PairBatch
from data_pipeline.config import BadInput
from data_pipeline.data import DataConfig
from data_pipeline.pair_data import PairData
from data_pipeline.streams.pairs import Pairs
from evals.language_model import ALONE
from pretrain.contract import Loss
from pretrain.group import Group
from pretrain.rng import seed_everything
from pretrain.units import perplexity

PairScore = Callable[[PairBatch], Loss]


@dataclass(frozen=True, slots=True)
class PairsScore:
    """Sums over a split; equal on every worker."""

    sums: dict[str, float]
    """`objective`, and the model's own metrics, among them `nats` of a model with a likelihood."""
    tokens: int
    pairs: int

    @property
    def means(self) -> dict[str, float]:
        """Per target token; `nats` as nats per token and perplexity."""
        found = {name: value / self.tokens for name, value in self.sums.items()}
        if "nats" in found:
            found["nats_per_token"] = found.pop("nats")
            found["perplexity"] = perplexity(self.sums["nats"], self.tokens)
        return found


def open_pairs(data: DataConfig, split: str) -> Pairs:
    """BadInput for data that is no pairs, or has no such split."""
    if isinstance(data, PairData):
        return data.pairs(split)
    raise BadInput(f"data.kind {data.kind} has no pairs to score")


def score_pairs(score: PairScore, pairs: Pairs, *, rows: int, seed: int, group: Group = ALONE) -> PairsScore:
    """Collective: every worker of `group` scores every `world_size`-th batch, and all score equally often."""
    if rows < 1:
        raise BadInput(f"rows is {rows}; it must be at least 1")
    num_batches = math.ceil(len(pairs) / rows)
    sums: dict[str, float] = {}
    for turn in range(math.ceil(num_batches / group.world_size)):
        number = turn * group.world_size + group.rank
        counts = number < num_batches  # else one is scored again, and left out
        number = number if counts else 0
        seed_everything(seed, "evaluate", number)
        loss = score(pairs.batch(np.arange(number * rows, min((number + 1) * rows, len(pairs)))))
        values = {"objective": float(loss.total), TOKENS: float(loss.count)}
        for name, value in (values | {name: float(metric) for name, metric in loss.metrics.items()}).items():
            sums[name] = sums.get(name, 0.0) + (value if counts else 0.0)
    names = sorted(sums)
    summed = group.all_reduce_sum(torch.tensor([sums[name] for name in names], dtype=torch.float64))
    found = dict(zip(names, summed.tolist(), strict=True))
    tokens = int(found.pop(TOKENS))
    return PairsScore(found, tokens, len(pairs))


TOKENS = "tokens"
