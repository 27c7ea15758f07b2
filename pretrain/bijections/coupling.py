"""Coupling: half of a row passes unchanged and says how the other half is transformed.

NICE (Dinh et al. 2015, https://arxiv.org/abs/1410.8516, section 3.2) adds, RealNVP (Dinh et al. 2017,
https://arxiv.org/abs/1605.08803, equations 7 to 9) scales as well. With b the mask of what passes,

    z = b x + (1 - b) (x exp(s(b x)) + t(b x)),    log |det| = sum (1 - b) s(b x)

s is bounded by `LARGEST_LOG_SCALE` through a tanh, so that no row can blow up.

Shape legend: R rows, ... the shape of a row (D values, or C channels, H height, W width).
"""

import torch
from torch import Tensor, nn

from pretrain.bijections.bijection import Bijection, sum_of_row
from pretrain.layers.precision import at_least_float32, to_dtype_of

LARGEST_LOG_SCALE = 3.0


def alternating(num_values: int, parity: int) -> Tensor:
    """[D] every second value passes."""
    return torch.arange(num_values) % 2 == parity


def halves(num_values: int, parity: int) -> Tensor:
    """[D] the first half passes, or the second."""
    return (torch.arange(num_values) < num_values // 2) == (parity == 0)


def checkerboard(channels: int, height: int, width: int, parity: int) -> Tensor:
    """[C, H, W] pixels of one colour of a chess board pass (RealNVP, figure 3)."""
    colour_HW = (torch.arange(height)[:, None] + torch.arange(width)) % 2
    return (colour_HW == parity).expand(channels, height, width).clone()


def channel_halves(channels: int, height: int, width: int, parity: int) -> Tensor:
    """[C, H, W] the first half of the channels passes, or the second."""
    return halves(channels, parity)[:, None, None].expand(channels, height, width).clone()


class AdditiveCoupling(Bijection):
    """Keeps volume. The conditioner gives as many values as it reads."""

    mask: Tensor

    def __init__(self, mask: Tensor, conditioner: nn.Module) -> None:
        super().__init__()
        self.register_buffer("mask", mask, persistent=False)
        self.conditioner = conditioner

    def _shift(self, passing: Tensor) -> Tensor:
        shift = self.conditioner(to_dtype_of(self.conditioner, passing))
        return at_least_float32(shift) * ~self.mask

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x + self._shift(x * self.mask), x.new_zeros(len(x))

    def inverse(self, z: Tensor) -> Tensor:
        return z - self._shift(z * self.mask)


class AffineCoupling(Bijection):
    """The conditioner gives twice as many values (or channels) as it reads: log-scales, then shifts."""

    mask: Tensor

    def __init__(self, mask: Tensor, conditioner: nn.Module) -> None:
        super().__init__()
        self.register_buffer("mask", mask, persistent=False)
        self.conditioner = conditioner

    def _log_scale_and_shift(self, passing: Tensor) -> tuple[Tensor, Tensor]:
        raw, shift = at_least_float32(self.conditioner(to_dtype_of(self.conditioner, passing))).chunk(2, dim=1)
        log_scale = LARGEST_LOG_SCALE * torch.tanh(raw / LARGEST_LOG_SCALE)
        return log_scale * ~self.mask, shift * ~self.mask

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        log_scale, shift = self._log_scale_and_shift(x * self.mask)
        return x * log_scale.exp() + shift, sum_of_row(log_scale)

    def inverse(self, z: Tensor) -> Tensor:
        log_scale, shift = self._log_scale_and_shift(z * self.mask)
        return (z - shift) * (-log_scale).exp()
