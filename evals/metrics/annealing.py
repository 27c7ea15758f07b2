"""Annealed importance sampling (Neal 2001, https://arxiv.org/abs/physics/9803008).

Between a normalised density f_0 that can be sampled and an unnormalised f_1 lies a path of f_beta. A chain starts at
x_0 ~ f_0; for beta_1 < ... < beta_T = 1 its weight and state go on as

    log w += log f_{beta_t}(x_{t-1}) - log f_{beta_{t-1}}(x_{t-1}),    x_t ~ T_{beta_t}(. given x_{t-1})

with T_beta any transition that leaves f_beta invariant. Then E w = Z, the integral of f_1, and so E log w <= log Z.
From exact samples of f_1 with betas from 1 down to 0 the same loop has E w = 1/Z, and so -E log w >= log Z (Burda et
al. 2015, https://arxiv.org/abs/1412.8566; Grosse et al. 2015).

Shape legend: R chains, D dimensions of the state (any further shape will do).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

from data_pipeline.config import BadInput

LogDensity = Callable[[Tensor], Tensor]
"""States [R, D] to log f(x) [R], up to a constant where the user says so; differentiable where a gradient is taken."""
Transition = Callable[[Tensor, LogDensity, torch.Generator], Tensor]
"""(states [R, D], log-density, generator) to new states; leaves the density invariant."""


class Path(Protocol):
    """The densities between, and moves that leave them invariant."""

    def log_ratio(self, x_RD: Tensor, beta_from: float, beta_to: float) -> Tensor:
        """[R] log f_to(x) - log f_from(x)."""

    def move(self, x_RD: Tensor, beta: float, generator: torch.Generator) -> Tensor:
        """New states: one draw of a transition that leaves f_beta invariant."""


@dataclass(frozen=True, slots=True)
class GeometricPath:
    """f_beta = f_0^(1 - beta) f_1^beta."""

    log_start: LogDensity
    """Normalised: its samples are where chains start."""
    log_target: LogDensity
    """Not normalised."""
    transition: Transition

    def log_ratio(self, x_RD: Tensor, beta_from: float, beta_to: float) -> Tensor:
        return (beta_to - beta_from) * (self.log_target(x_RD) - self.log_start(x_RD))

    def move(self, x_RD: Tensor, beta: float, generator: torch.Generator) -> Tensor:
        def log_density(y_RD: Tensor) -> Tensor:
            return (1 - beta) * self.log_start(y_RD) + beta * self.log_target(y_RD)

        return self.transition(x_RD, log_density, generator)


@dataclass(frozen=True, slots=True)
class Annealed:
    """Where chains ended."""

    log_w_R: Tensor
    """float64; of reverse chains, that of 1/Z."""
    states_RD: Tensor
    """With these weights, samples of the last density."""


def evenly_spaced(num_temperatures: int) -> list[float]:
    """Betas from 0 to 1 in so many equal steps."""
    if num_temperatures < 1:
        raise BadInput(f"num_temperatures is {num_temperatures}; must be at least 1")
    return [step / num_temperatures for step in range(num_temperatures + 1)]


@torch.no_grad()
def anneal(start_RD: Tensor, path: Path, betas: Sequence[float], generator: torch.Generator) -> Annealed:
    """Takes chains along the path: from samples of f_0 with betas 0 .. 1, or from samples of f_1 with betas 1 .. 0.

    Chains are independent. Further batches of them are further calls with the same generator.
    """
    check_betas(betas)
    states_RD = start_RD
    log_w_R = torch.zeros(len(start_RD), dtype=torch.float64, device=start_RD.device)
    for beta_from, beta_to in pairwise(betas):
        log_w_R = log_w_R + path.log_ratio(states_RD, beta_from, beta_to).double()
        states_RD = path.move(states_RD, beta_to, generator)
    return Annealed(log_w_R, states_RD)


def check_betas(betas: Sequence[float]) -> None:
    """BadInput for betas that do not go from 0 to 1, or from 1 to 0, without turning back."""
    rises = all(a < b for a, b in pairwise(betas))
    falls = all(a > b for a, b in pairwise(betas))
    if len(betas) < 2 or {betas[0], betas[-1]} != {0.0, 1.0} or not (rises or falls):
        raise BadInput(
            f"betas {list(betas[:3])}..{list(betas[-1:])}: must rise from 0 to 1, or fall from 1 to 0 (reverse)"
        )
