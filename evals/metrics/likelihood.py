"""Exact likelihoods: nats per example, and bits per dimension.

A density p of continuous values says nothing of bits until one level of the data has a width. With D dimensions, levels
of width a on the scale that p is a density of, and noise u within a level (Theis et al. 2016,
https://arxiv.org/abs/1511.01844, section 3.1),

    -log2 P(x) / D  <=  E_u [-log2 p(x + u)] / D - log2 a

P being the probability that p gives to the level. Pixels of 256 levels scaled to [0, 1] have a = 1/256: 8 bits are
added, which is what is forgotten when a number is far too good.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from data_pipeline.config import BadInput
from evals.metric import Metric
from evals.metrics.average import average
from evals.metrics.batches import Rows, batches_of
from pretrain import units


@dataclass(frozen=True, slots=True)
class Dequantization:
    """How discrete values became those that the density is of."""

    levels: int
    """How many values a dimension takes: 256 for 8 bits."""
    width: float
    """Of one level on the model's scale: 1 for pixels 0..255 plus noise, 1/256 where these are scaled to [0, 1]."""
    noise: Literal["uniform", "variational"]
    """Uniform over the level; or from q(u given x), whose -log q(u given x) is then part of the log-probability."""

    def __post_init__(self) -> None:
        if self.levels < 2 or not 0.0 < self.width < math.inf:
            raise BadInput(f"levels {self.levels}, width {self.width}: must be at least 2 levels of a positive width")


def negative_log_likelihood(log_prob: Rows, *, protocol: Mapping[str, Any]) -> Metric:
    """Mean nats per example from exact log p(x) [N]; for a bound there is `bounds`."""
    known = {**protocol, "likelihood": "exact"}
    nats = (-batch for batch in batches_of(log_prob))
    return average("nll", nats, unit="nats/example", better="lower", protocol=known)


def bits_per_dimension(
    log_prob: Rows, *, num_dimensions: int, dequantization: Dequantization | None, protocol: Mapping[str, Any]
) -> Metric:
    """Mean bits per dimension from log p(x) [N] in nats.

    `dequantization` None says that p is a probability of discrete values. Otherwise p is a density, and the number is
    an upper bound on the bits of the discrete values.
    """
    if num_dimensions < 1:
        raise BadInput(f"num_dimensions is {num_dimensions}; must be at least 1")
    level_nats = -num_dimensions * math.log(dequantization.width) if dequantization else 0.0
    known = {
        **protocol,
        "value_is": "an upper bound" if dequantization else "exact",
        "dimensions": num_dimensions,
        "dequantization": asdict(dequantization) if dequantization else "discrete values",
    }
    nats = (level_nats - batch for batch in batches_of(log_prob))
    found = average("bits_per_dimension", nats, unit="bits/dimension", better="lower", protocol=known)
    error = None if found.stderr is None else units.bits_per_dimension(found.stderr, num_dimensions)
    return replace(found, value=units.bits_per_dimension(found.value, num_dimensions), stderr=error)
