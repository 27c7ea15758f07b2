"""Linear layers that lack some connections, and the masks that make a network autoregressive.

Germain et al. 2015 (MADE, https://arxiv.org/abs/1502.03509): every unit has a degree. An input's is its place in the
order, 1 .. D; a hidden unit's says up to which place it may look. A connection stays where it lets nothing later in:

    hidden k  from j:  m(k) >= m(j)    (equation 12)
    output d from k:   m(d) > m(k)     (equation 13); so also where inputs are connected to outputs directly

Shape legend: K sets of masks, D values, I units in, O units out, H hidden units.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from torch import Tensor, nn
from torch.nn import functional as F

from data_pipeline.mixing import keys, mix, uniform

Order = Literal["natural", "drawn"]
"""First to last, or a permutation drawn from a seed."""


class MaskedLinear(nn.Linear):
    """x W' + b over the connections that are let through."""

    def forward(self, x: Tensor, mask_OI: Tensor) -> Tensor:  # type: ignore[override]
        """[..., I] -> [..., O]; the mask has ones (or true) where a connection stays."""
        return F.linear(x, self.weight * mask_OI, self.bias)


def hidden_mask(degree_O: Tensor, degree_I: Tensor) -> Tensor:
    """[O, I] bool, equation 12."""
    return degree_O[:, None] >= degree_I


def output_mask(degree_O: Tensor, degree_I: Tensor) -> Tensor:
    """[O, I] bool, equation 13."""
    return degree_O[:, None] > degree_I


def places_of(num_values: int, order: Order, *path: int | str) -> np.ndarray:
    """[D] int64: the place 1 .. D of each value; a drawn order is a function of `path`."""
    if order == "natural":
        return np.arange(1, num_values + 1)
    drawn: np.ndarray = np.argsort(np.argsort(_chances(num_values, "order", *path))) + 1
    return drawn


def hidden_degrees(widths: Sequence[int], num_values: int, *path: int | str) -> list[np.ndarray]:
    """[H] int64 of each layer, evenly from the lowest of the layer before up to D - 1; a function of `path`."""
    degrees, lowest = [], 1
    for number, width in enumerate(widths):
        most = max(num_values - 1, lowest)
        drawn_H = lowest + (_chances(width, "degrees", *path, number) * (most - lowest + 1)).astype(np.int64)
        degrees.append(drawn_H)
        lowest = int(drawn_H.min())
    return degrees


def _chances(count: int, *path: int | str) -> np.ndarray:
    return uniform(mix(np.arange(count, dtype=np.uint64), keys(1, *path)[0]))
