"""Langevin chains of a quadratic energy, whose distribution after any number of steps is known.

Shape legend: R chains, D dimensions.
"""

import pytest
import torch
from torch import Tensor, nn

from pretrain.samplers import langevin as module
from pretrain.samplers.langevin import langevin, slope

CHAINS = 20_000


def quadratic(x_RD: Tensor) -> Tensor:
    return 0.5 * x_RD.square().sum(-1)


def check_stationary_variance(step_size: float, noise_std: float | None = None) -> None:
    """T / (1 - lambda/4) with T = noise^2 / lambda, within four standard errors of independent chains."""
    torch.manual_seed(0)
    x_RD = torch.zeros(CHAINS, 1, dtype=torch.float64)
    steps = int(20 / step_size)  # the start is forgotten by (1 - lambda/2)^steps < 1e-4
    x_RD = langevin(quadratic, x_RD, steps=steps, step_size=step_size, noise_std=noise_std)
    temperature = 1.0 if noise_std is None else noise_std**2 / step_size
    wanted = temperature / (1 - step_size / 4)
    found = float(x_RD.square().mean())
    error = wanted * (2 / CHAINS) ** 0.5
    print(f"lambda {step_size}: variance {found:.4f}, exact {wanted:.4f} +- {error:.4f}")
    assert found == pytest.approx(wanted, abs=4 * error)


@pytest.mark.parametrize("step_size", [0.1, 0.5, 1.0])
def test_the_stationary_variance_is_not_one(step_size: float) -> None:
    check_stationary_variance(step_size)


def test_less_noise_is_a_lower_temperature() -> None:
    check_stationary_variance(0.5, noise_std=0.1)


@pytest.mark.parametrize("step_size", [0.1, 0.5, 1.0])
def test_a_step_of_the_whole_slope_is_seen(step_size: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mutant forgets the half; its variance is 1 / (2 - lambda)."""
    monkeypatch.setattr(module, "slope", lambda energy, x_RD: 2 * slope(energy, x_RD))
    with pytest.raises(AssertionError):
        check_stationary_variance(step_size)


def test_without_noise_it_is_gradient_descent() -> None:
    x_RD = torch.randn(5, 3, dtype=torch.float64)
    found = langevin(quadratic, x_RD, steps=4, step_size=0.3, noise_std=0.0)
    torch.testing.assert_close(found, x_RD * (1 - 0.15) ** 4, rtol=0, atol=1e-12)


def test_bounds_hold() -> None:
    x_RD = langevin(quadratic, torch.zeros(500, 2), steps=3, step_size=1.0, bounds=(-0.5, 0.25))
    assert float(x_RD.min()) == -0.5
    assert float(x_RD.max()) == 0.25


def test_chains_leave_no_gradient_behind() -> None:
    network, x_RD = nn.Linear(3, 1), torch.randn(4, 3, requires_grad=True)
    with torch.no_grad():
        moved = langevin(lambda y: network(y)[:, 0], x_RD, steps=2, step_size=0.1)
    assert not moved.requires_grad
    assert x_RD.grad is None
    assert all(p.grad is None for p in network.parameters())
