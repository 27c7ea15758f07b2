"""Activation normalization: a learned scale and shift of each channel, or of each value of a vector.

Kingma & Dhariwal 2018 (Glow, https://arxiv.org/abs/1807.03039, section 3.1):

    z = (x + b) exp(s),    log |det| = H W sum_c s_c

Ours starts as the identity. The paper starts it from the statistics of a first batch; but then what a weight starts at
would depend on which worker saw which micro-batch, and on there being a pass before the first step.

Shape legend: R rows, C channels (or values), H height, W width.
"""

import torch
from torch import Tensor, nn

from pretrain.bijections.bijection import Bijection
from pretrain.layers.precision import at_least_float32


class ActNorm(Bijection):
    """Of [R, C] or [R, C, H, W]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.log_scale_C = nn.Parameter(torch.zeros(channels))
        self.shift_C = nn.Parameter(torch.zeros(channels))

    def _log_scale_and_shift(self, like: Tensor) -> tuple[Tensor, Tensor]:
        beside = (-1, *[1] * (like.dim() - 2))
        return at_least_float32(self.log_scale_C).view(beside), at_least_float32(self.shift_C).view(beside)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        log_scale, shift = self._log_scale_and_shift(x)
        places = x[0, 0].numel()
        return (x + shift) * log_scale.exp(), (places * log_scale.sum()).expand(len(x))

    def inverse(self, z: Tensor) -> Tensor:
        log_scale, shift = self._log_scale_and_shift(z)
        return z * (-log_scale).exp() - shift
