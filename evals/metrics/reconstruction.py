"""How well data come back from their latents.

Every metric says how outputs were decoded: a reconstruction that was shown the right previous tokens (teacher
forcing) is no reconstruction from the latent alone.

Shape legend: R rows of a batch; further dimensions are those of an example.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from data_pipeline.config import BadInput
from evals.metric import Metric
from evals.metrics.average import average

Decoding = Literal["mean", "sampled", "greedy", "beam search", "teacher forced"]
Pairs = Iterable[tuple[Tensor, Tensor]]
"""Batches of (data [R, ...], what the model made of them, of the same shape)."""


def squared_error(
    pairs: Pairs, *, per: Literal["example", "dimension"], decoding: Decoding, protocol: Mapping[str, Any]
) -> Metric:
    """`squared_error` of each example, summed over its dimensions or meant over them, in squared data units."""
    errors = (
        (x.double() - made.double()).square().flatten(1).sum(-1) / (1 if per == "example" else x.flatten(1).shape[1])
        for x, made in _checked(pairs)
    )
    known = {**protocol, "decoding": decoding, "per": per}
    return average("squared_error", errors, unit=f"squared units/{per}", better="lower", protocol=known)


def bernoulli_nats(pairs: Pairs, *, decoding: Decoding, protocol: Mapping[str, Any]) -> Metric:
    """`bernoulli_nats`: -log p(x) of independent bits, summed over an example; pairs of (x in [0, 1], logits)."""
    nats = (
        F.binary_cross_entropy_with_logits(logits.double(), x.double(), reduction="none").flatten(1).sum(-1)
        for x, logits in _checked(pairs, unit_interval=True)
    )
    known = {**protocol, "decoding": decoding}
    return average("bernoulli_nats", nats, unit="nats/example", better="lower", protocol=known)


def accuracy(
    pairs: Pairs, *, decoding: Decoding, padding: int | None = None, protocol: Mapping[str, Any]
) -> tuple[Metric, Metric]:
    """`reconstruction_accuracy`, the mean over examples of the share of their positions that are right, and
    `exact_match`, the share of examples with no error; in per cent, of pairs (tokens [R, L], tokens [R, L]).

    Positions whose true token is `padding` are not counted; an example of nothing else is BadInput.
    """
    shares: list[Tensor] = []
    for truth, made in _checked(pairs):
        counted = torch.ones_like(truth, dtype=torch.bool) if padding is None else truth != padding
        number_R = counted.flatten(1).sum(-1)
        if not number_R.all():
            raise BadInput(f"an example holds only padding {padding}; leave it out")
        shares.append(((truth == made) & counted).flatten(1).sum(-1).double() / number_R)
    known = {**protocol, "decoding": decoding, "padding": padding}
    return (
        average("reconstruction_accuracy", (100 * s for s in shares), unit="%", better="higher", protocol=known),
        average("exact_match", (100.0 * (s == 1) for s in shares), unit="%", better="higher", protocol=known),
    )


def _checked(pairs: Pairs, *, unit_interval: bool = False) -> Iterator[tuple[Tensor, Tensor]]:
    for truth, made in pairs:
        if truth.shape != made.shape or truth.ndim < 2:
            shapes = f"{tuple(truth.shape)} and {tuple(made.shape)}"
            raise BadInput(f"data and reconstruction have shapes {shapes}; must be equal, [rows, ...]")
        if unit_interval and not bool(((truth >= 0) & (truth <= 1)).all()):
            raise BadInput(f"data from {truth.min()} to {truth.max()}; Bernoulli nats are of data in [0, 1]")
        yield truth.detach(), made.detach()
