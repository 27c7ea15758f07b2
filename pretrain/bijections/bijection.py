"""What every bijection has, and their composition and inverse.

z = f(x) with a density p(z) gives x the density (change of variables)

    log p(x) = log p(f(x)) + log |det df/dx|

Shape legend: R rows, ... the shape of a row.
"""

import abc
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from pretrain.layers.precision import at_least_float32


class Bijection(nn.Module, abc.ABC):
    """A function that can be undone, row by row. Values and log-determinants are at least float32."""

    @abc.abstractmethod
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[R, ...] x -> z and [R] log |det dz/dx|."""

    @abc.abstractmethod
    def inverse(self, z: Tensor) -> Tensor:
        """[R, ...] the x of which z is the image."""


class Composition(Bijection):
    """One after the other: log-determinants add up."""

    def __init__(self, parts: Iterable[Bijection]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = at_least_float32(x)
        log_det_R = z.new_zeros(len(z))
        for part in self.parts:
            z, part_R = part(z)
            log_det_R = log_det_R + part_R
        return z, log_det_R

    def inverse(self, z: Tensor) -> Tensor:
        for part in reversed(self.parts):
            assert isinstance(part, Bijection)
            z = part.inverse(z)
        return z


class Inverse(Bijection):
    """The other way round: what is a pass of one becomes the inverse of the other."""

    def __init__(self, inner: Bijection) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = self.inner.inverse(x)
        _, log_det_R = self.inner(z)
        return z, -log_det_R

    def inverse(self, z: Tensor) -> Tensor:
        x: Tensor
        x, _ = self.inner(z)
        return x


class Reverse(Bijection):
    """Dimensions in the opposite order."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.flip(1), at_least_float32(x).new_zeros(len(x))

    def inverse(self, z: Tensor) -> Tensor:
        return z.flip(1)


def sum_of_row(values: Tensor) -> Tensor:
    """[R, ...] -> [R]."""
    return torch.flatten(values, 1).sum(1)
