"""Planar flow: space is pulled apart or pushed together around one plane.

Rezende & Mohamed 2015 (https://arxiv.org/abs/1505.05770, equations 10 to 12 and appendix A.1):

    z = x + u' tanh(w.x + b),    log |det| = log |1 + u'.w (1 - tanh^2(w.x + b))|
    u' = u + (m(w.u) - w.u) w / |w|^2,    m(a) = -1 + log(1 + e^a) + LEAST

u' has w.u' > -1, without which the function cannot be undone; `LEAST` keeps it so where rounding loses log(1 + e^a).
With h = tanh(w.x + b) and s = 1 + w.u' the determinant is a sum of what is positive, h^2 + s (1 - h^2), which cancels
nothing. Undone the function is by bisection of the one number w.x.

Shape legend: R rows, D values of a row.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pretrain.bijections.bijection import Bijection
from pretrain.layers.precision import at_least_float32

BISECTIONS = 100
"""More than the bits of a float64."""
LEAST = 1e-4
"""Of the slope across the plane: with less, nothing could be undone in float32."""


class Planar(Bijection):
    """Of [R, D]."""

    def __init__(self, num_values: int) -> None:
        super().__init__()
        self.u_D = nn.Parameter(0.1 * torch.randn(num_values))
        self.w_D = nn.Parameter(torch.randn(num_values) / math.sqrt(num_values))
        self.b = nn.Parameter(torch.zeros(1))

    def _direction(self) -> tuple[Tensor, Tensor, Tensor]:
        """[D] u', [D] w, and [] s = 1 + w.u', above 0."""
        u_D, w_D = at_least_float32(self.u_D), at_least_float32(self.w_D)
        along = w_D @ u_D
        slope = F.softplus(along) + LEAST
        square = w_D.square().sum().clamp(min=torch.finfo(w_D.dtype).tiny)
        return u_D + (slope - 1 - along) * w_D / square, w_D, slope

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        u_D, w_D, slope = self._direction()
        h_R = torch.tanh(x @ w_D + at_least_float32(self.b))
        square_R = h_R.square()
        return x + h_R[:, None] * u_D, torch.log(square_R + slope * (1 - square_R))

    @torch.no_grad()
    def inverse(self, z: Tensor) -> Tensor:
        u_D, w_D, slope = self._direction()
        pull, goal_R, b = slope - 1, z @ w_D, at_least_float32(self.b)
        low_R, high_R = goal_R - pull.abs(), goal_R + pull.abs()
        for _ in range(BISECTIONS):
            middle_R = (low_R + high_R) / 2
            above_R = middle_R + pull * torch.tanh(middle_R + b) > goal_R
            low_R, high_R = torch.where(above_R, low_R, middle_R), torch.where(above_R, middle_R, high_R)
        return z - torch.tanh(low_R + b)[:, None] * u_D
