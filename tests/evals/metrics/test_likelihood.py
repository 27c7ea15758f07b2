"""Bits per dimension against the entropy of discrete values that were dequantised.

Shape legend: N examples, D dimensions, V values.
"""

import math

import pytest
import torch
from torch import Tensor

from data_pipeline.config import BadInput
from evals.metrics.likelihood import Dequantization, bits_per_dimension, negative_log_likelihood

LEVELS, DIMENSIONS = 256, 12


def probabilities() -> Tensor:
    return torch.randn(LEVELS, dtype=torch.float64).mul(2).softmax(0)


def stairs(p_V: Tensor, x_ND: Tensor, low: float, width: float) -> Tensor:
    """[N] log-density that is p(level) / width on each level, of independent dimensions."""
    level_ND = ((x_ND - low) / width).floor().long()
    return (p_V[level_ND] / width).log().sum(-1)


@pytest.mark.parametrize(("low", "width"), [(0.0, 1.0), (0.0, 1 / 256), (-1.0, 2 / 256)])
def test_the_scale_of_pixels_does_not_matter(low: float, width: float) -> None:
    p_V = probabilities()
    values_ND = torch.multinomial(p_V, 40 * DIMENSIONS, replacement=True).reshape(40, DIMENSIONS)
    exact = bits_per_dimension(
        p_V[values_ND].log().sum(-1), num_dimensions=DIMENSIONS, dequantization=None, protocol={}
    )
    noisy_ND = low + width * (values_ND + 0.5 + 0.4 * (torch.rand(values_ND.shape, dtype=torch.float64) - 0.5))
    how = Dequantization(levels=LEVELS, width=width, noise="uniform")
    log_prob_N = stairs(p_V, noisy_ND, low, width)
    found = bits_per_dimension(log_prob_N, num_dimensions=DIMENSIONS, dequantization=how, protocol={})
    assert exact.value == pytest.approx(float(-p_V[values_ND].log2().mean()), abs=1e-12)
    assert found.value == pytest.approx(exact.value, abs=1e-12)
    assert found.stderr == pytest.approx(exact.stderr, abs=1e-12)
    assert exact.protocol["value_is"] == "exact"
    assert found.protocol["value_is"] == "an upper bound"
    assert found.protocol["dequantization"] == {"levels": 256, "width": width, "noise": "uniform"}
    unsaid = Dequantization(levels=LEVELS, width=1.0, noise="uniform")
    mutant = bits_per_dimension(log_prob_N, num_dimensions=DIMENSIONS, dequantization=unsaid, protocol={})
    assert mutant.value - found.value == pytest.approx(math.log2(width), abs=1e-12)


def test_uniform_noise_gives_an_upper_bound_on_bits() -> None:
    """A density that is not constant on a level: the mean of -log p over the level exceeds -log of its mean."""
    edges = torch.linspace(0, 2, 2001, dtype=torch.float64)
    u_N = (edges[1:] + edges[:-1]) / 2
    log_prob_N = torch.log(0.5 * torch.exp(-u_N) / (1 - math.exp(-1.0)) + 0.25 * u_N.ge(0))
    exact_bits = 0.0
    for level in (u_N < 1, u_N >= 1):
        exact_bits -= 0.5 * math.log2(float(log_prob_N[level].exp().mean()))
    how = Dequantization(levels=2, width=1.0, noise="uniform")
    found = bits_per_dimension(log_prob_N, num_dimensions=1, dequantization=how, protocol={})
    assert found.value > exact_bits


def test_nats_are_those_of_the_rows() -> None:
    found = negative_log_likelihood([torch.tensor([-1.0, -2.0]), torch.tensor([-6.0])], protocol={"split": "test"})
    assert (found.name, found.value, found.unit, found.count) == ("nll", 3.0, "nats/example", 3)
    assert found.protocol == {"split": "test", "likelihood": "exact"}


def test_bad_input() -> None:
    with pytest.raises(BadInput, match="width 0"):
        Dequantization(levels=256, width=0.0, noise="uniform")
    with pytest.raises(BadInput, match="num_dimensions is 0"):
        bits_per_dimension(torch.zeros(1), num_dimensions=0, dequantization=None, protocol={})
