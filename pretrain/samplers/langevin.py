"""Unadjusted Langevin dynamics, also called stochastic gradient Langevin dynamics.

Towards the density exp(-E(x)) / Z, with step size lambda (Du & Mordatch 2019, https://arxiv.org/abs/1903.08689):

    x <- x - lambda/2 grad E(x) + N(0, noise^2 I),    noise^2 = lambda

No move is refused, so the chain's own distribution is near that density only for small steps: of E(x) = x^2 / 2 it has
variance 1 / (1 - lambda/4), not 1. With another noise it goes to exp(-E(x) / T) with T = noise^2 / lambda, a tempered
density, as near as before: variance T / (1 - lambda/4).

Shape legend: R chains, D dimensions.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Energy = Callable[[Tensor], Tensor]
"""States [R, D] to E(x) [R], differentiable."""


def langevin(
    energy: Energy,
    x_RD: Tensor,
    *,
    steps: int,
    step_size: float,
    noise_std: float | None = None,
    bounds: tuple[float, float] | None = None,
) -> Tensor:
    """[R, D] the chains after so many steps, detached; noise from torch's default generator.

    `noise_std` None is the square root of `step_size`; `bounds` are where states are pushed back to after every step.
    """
    noise_std = step_size**0.5 if noise_std is None else noise_std
    x_RD = x_RD.detach()
    for _ in range(steps):
        x_RD = x_RD - step_size / 2 * slope(energy, x_RD) + noise_std * torch.randn_like(x_RD)
        x_RD = x_RD if bounds is None else x_RD.clamp(*bounds)
    return x_RD


def slope(energy: Energy, x_RD: Tensor) -> Tensor:
    """[R, D] grad E(x), detached, also where gradients are off; no parameter gets any."""
    with torch.enable_grad():
        x_RD = x_RD.detach().requires_grad_()
        (slope_RD,) = torch.autograd.grad(energy(x_RD).sum(), x_RD)
    return slope_RD
