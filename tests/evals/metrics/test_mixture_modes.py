"""Modes of eight Gaussians on a circle."""

import math

import pytest
import torch
from torch import Tensor

from data_pipeline.config import BadInput
from evals.metrics.mixture_modes import mixture_modes

STD = 0.1


def circle() -> Tensor:
    angle = 2 * math.pi * torch.arange(8, dtype=torch.float64) / 8
    return 2 * torch.stack([angle.cos(), angle.sin()], -1)


@pytest.mark.parametrize("radius", [1.0, 3.0])
def test_samples_of_the_mixture_itself(radius: float) -> None:
    """In two dimensions the share within r deviations is 1 - exp(-r^2 / 2)."""
    noise = STD * torch.randn(8000, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    samples = circle().repeat(1000, 1) + noise
    modes, quality = mixture_modes(samples.split(333), circle(), standard_deviation=STD, radius=radius, protocol={})
    share = 1 - math.exp(-(radius**2) / 2)
    assert modes.value == 8
    assert abs(quality.value - share) < 4 * math.sqrt(share * (1 - share) / 8000)


def test_counts_by_hand() -> None:
    """Two good samples at mode 0, one at mode 1 exactly at the radius, one just beyond it at mode 2."""
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    samples = torch.tensor([[0.5, 0.0], [0.0, -2.0], [13.0, 0.0], [0.0, 13.01]])
    how = {"standard_deviation": 1.0, "radius": 3.0, "protocol": {"split": "test"}}
    modes, quality = mixture_modes(samples, centres, **how)
    assert (modes.value, modes.count, quality.value, quality.count) == (2, 3, 0.75, 4)
    assert quality.protocol["radius_in_deviations"] == 3.0
    twice, _ = mixture_modes(samples, centres, **how, at_least=2)
    assert twice.value == 1
    none, bad = mixture_modes(samples + 100, centres, **how)
    assert (none.value, bad.value) == (0, 0)


def test_bad_input() -> None:
    with pytest.raises(BadInput, match=r"must be \[N, D\] and \[M, D\]"):
        mixture_modes(torch.zeros(3, 3), circle(), standard_deviation=1.0, protocol={})
    with pytest.raises(BadInput, match="at least one mode"):
        mixture_modes(torch.zeros(3, 2), torch.zeros(0, 2), standard_deviation=1.0, protocol={})
    with pytest.raises(BadInput, match="above zero"):
        mixture_modes(torch.zeros(3, 2), circle(), standard_deviation=0.0, protocol={})


def test_samples_at_the_first_modes_alone() -> None:
    """`at_least` is asked of every mode, of those after the last that has any too."""
    modes, _ = mixture_modes(torch.zeros(3, 1), torch.tensor([[0.0], [50.0]]), standard_deviation=1.0, protocol={})
    assert (modes.value, modes.count) == (1, 2)
    last, _ = mixture_modes(torch.zeros(0, 1).new_full((1, 1), 50.0), torch.tensor([[0.0], [50.0]]),
                            standard_deviation=1.0, protocol={})  # fmt: skip
    assert last.value == 1
