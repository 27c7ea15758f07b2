"""From levels to numbers of the whole line: uniform dequantization, and the logit.

Levels l = 0 .. L - 1, which data have at l / (L - 1) in [0, 1], become y = (l + u) / L with noise u in [0, 1). A
density of y then bounds the probability of levels (Theis et al. 2016, https://arxiv.org/abs/1511.01844, section 3.1):

    log P(l) = log E_u p(y) - D log L >= E_u log p(y) - D log L

where -D log L is the log-determinant of the step from l + u to y. The logit (Dinh et al. 2017,
https://arxiv.org/abs/1605.08803, section 4.1) is z = log(v / (1 - v)) of v = a + (1 - 2 a) y, with a margin a, so that

    log |det| = sum log(1 - 2 a) - log v - log(1 - v)

Shape legend: R rows, D values of a row.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from pretrain.bijections.bijection import Bijection, sum_of_row
from pretrain.distributions.categorical import level_of, value_of
from pretrain.layers.precision import at_least_float32


def dequantize(values_RD: Tensor, noise_RD: Tensor, num_levels: int) -> tuple[Tensor, Tensor]:
    """Levels in [0, 1], noise in [0, 1) -> y in [0, 1), [R] log-determinant; BadInput of values outside of [0, 1].

    The sum may round up to the next level's bin; what would round up to 1 becomes the largest number below.
    """
    values_RD = at_least_float32(values_RD)
    y_RD = (level_of(values_RD, num_levels) + noise_RD) / num_levels
    y_RD = y_RD.clamp(max=1 - torch.finfo(y_RD.dtype).eps / 2)
    return y_RD, y_RD.new_full((len(y_RD),), -values_RD.shape[1] * math.log(num_levels))


def quantize(y_RD: Tensor, num_levels: int) -> Tensor:
    """The level, in [0, 1], in whose bin each number lies; of those outside, the nearest."""
    places_RD = (y_RD * num_levels).floor().clamp(0, num_levels - 1)
    return value_of(places_RD, num_levels, y_RD.dtype)


class Logit(Bijection):
    """(0, 1) -> the line."""

    def __init__(self, margin: float) -> None:
        super().__init__()
        self.margin = margin

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = torch.logit(self.margin + (1 - 2 * self.margin) * x)
        return z, sum_of_row(math.log(1 - 2 * self.margin) + F.softplus(z) + F.softplus(-z))

    def inverse(self, z: Tensor) -> Tensor:
        return (z.sigmoid() - self.margin) / (1 - 2 * self.margin)
