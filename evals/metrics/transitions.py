"""Markov moves that leave a continuous density invariant: random-walk Metropolis and Hamiltonian Monte Carlo.

Both propose and then accept with probability min(1, ratio), which is what makes them exact for any step size; a
proposal whose density is not a number is refused.

Shape legend: R chains, D dimensions of the state.
"""

import torch
from torch import Tensor

from data_pipeline.config import BadInput
from evals.metrics.annealing import LogDensity, Transition


def metropolis(*, step_size: float, num_steps: int = 1) -> Transition:
    """`num_steps` proposals x + step_size * N(0, I) (Metropolis et al. 1953)."""
    _check(step_size, num_steps)

    def move(x_RD: Tensor, log_density: LogDensity, generator: torch.Generator) -> Tensor:
        log_f_R = log_density(x_RD)
        for _ in range(num_steps):
            proposal_RD = x_RD + step_size * _normal(x_RD, generator)
            proposed_R = log_density(proposal_RD)
            accepted_R = _accepts(proposed_R - log_f_R, generator)
            x_RD = _where(accepted_R, proposal_RD, x_RD)
            log_f_R = torch.where(accepted_R, proposed_R, log_f_R)
        return x_RD

    return move


def hamiltonian(*, step_size: float, leapfrog_steps: int) -> Transition:
    """One trajectory of Hamiltonian dynamics with fresh momenta N(0, I) (Neal 2011, https://arxiv.org/abs/1206.1901)."""
    _check(step_size, leapfrog_steps)

    def move(x_RD: Tensor, log_density: LogDensity, generator: torch.Generator) -> Tensor:
        momentum_RD = _normal(x_RD, generator)
        end_RD, end_momentum_RD = leapfrog(x_RD, momentum_RD, log_density, step_size, leapfrog_steps)
        before_R = log_density(x_RD) - _kinetic(momentum_RD)
        after_R = log_density(end_RD) - _kinetic(end_momentum_RD)
        return _where(_accepts(after_R - before_R, generator), end_RD, x_RD)

    return move


def leapfrog(
    x_RD: Tensor, momentum_RD: Tensor, log_density: LogDensity, step_size: float, steps: int
) -> tuple[Tensor, Tensor]:
    """Position and momentum after so many leapfrog steps; undone by the same steps with the momentum turned round."""
    momentum_RD = momentum_RD + 0.5 * step_size * _slope(x_RD, log_density)
    for step in range(steps):
        x_RD = x_RD + step_size * momentum_RD
        share = 0.5 if step == steps - 1 else 1.0
        momentum_RD = momentum_RD + share * step_size * _slope(x_RD, log_density)
    return x_RD, momentum_RD


def _slope(x_RD: Tensor, log_density: LogDensity) -> Tensor:
    with torch.enable_grad():
        x_RD = x_RD.detach().requires_grad_()
        (slope_RD,) = torch.autograd.grad(log_density(x_RD).sum(), x_RD)
    return slope_RD


def _normal(like_RD: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like_RD.shape, dtype=like_RD.dtype, device=like_RD.device, generator=generator)


def _kinetic(momentum_RD: Tensor) -> Tensor:
    return 0.5 * momentum_RD.square().flatten(1).sum(-1)


def _accepts(log_ratio_R: Tensor, generator: torch.Generator) -> Tensor:
    uniform_R = torch.rand(log_ratio_R.shape, dtype=log_ratio_R.dtype, device=log_ratio_R.device, generator=generator)
    return uniform_R.log() < log_ratio_R


def _where(accepted_R: Tensor, new_RD: Tensor, old_RD: Tensor) -> Tensor:
    return torch.where(accepted_R.view(-1, *[1] * (old_RD.ndim - 1)), new_RD, old_RD)


def _check(step_size: float, steps: int) -> None:
    if not step_size > 0.0 or steps < 1:
        raise BadInput(f"step_size {step_size}, steps {steps}: must be positive, and at least 1")
