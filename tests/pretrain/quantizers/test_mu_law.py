"""Mu-law codes against G.711's formula, there and back."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from data_pipeline.config import BadInput
from pretrain.quantizers.mu_law import mu_law_codes, mu_law_values


@pytest.mark.parametrize("num_codes", [2, 3, 16, 256])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_codes_survive_the_way_there_and_back(num_codes: int, dtype: torch.dtype) -> None:
    codes = torch.arange(num_codes)
    values = mu_law_values(codes, num_codes, dtype)
    assert torch.equal(mu_law_codes(values, num_codes), codes)
    assert (float(values[0]), float(values[-1])) == pytest.approx((0, 1), abs=1e-7)
    assert bool((values.diff() > 0).all())
    assert not torch.equal(mu_law_codes(values, num_codes + 1), codes), "with another mu the codes are others"


def edges(codes: Tensor, num_codes: int) -> Tensor:
    """The mutant: the lower edge of a code in place of its middle."""
    return mu_law_values((codes.double() - 0.5001).clamp(min=0), num_codes, torch.float64)


def evenly(codes: Tensor, num_codes: int) -> Tensor:
    """The mutant: no companding on the way back."""
    return codes.double() / (num_codes - 1)


def of_another_mu(codes: Tensor, num_codes: int) -> Tensor:
    """The mutant: mu is the number of codes."""
    return mu_law_values(codes, num_codes + 1, torch.float64)


@pytest.mark.parametrize("mutant", [edges, evenly, of_another_mu])
def test_a_wrong_way_back_does_not_bring_all_256_codes_back(mutant: Callable[[Tensor, int], Tensor]) -> None:
    codes = torch.arange(256)
    assert torch.equal(mu_law_codes(mu_law_values(codes, 256, torch.float64), 256), codes)
    assert not torch.equal(mu_law_codes(mutant(codes, 256), 256), codes)


def test_codes_are_those_of_the_formula_for_all_samples_of_16_bits() -> None:
    samples = torch.arange(65_536, dtype=torch.float64) / 65_535
    x, mu = 2 * samples - 1, 255
    companded = torch.sign(x) * torch.log(1 + mu * x.abs()) / math.log(1 + mu)
    exact = (companded + 1) / 2 * mu
    codes = mu_law_codes(samples, 256)
    assert float((codes - exact).abs().max()) <= 0.5 + 1e-9
    assert torch.equal(codes.unique(), torch.arange(256))
    heard = 2 * mu_law_values(codes, 256, torch.float64) - 1
    step = math.log(256) / 255 * (1 / 255 + x.abs())  # half a code's width, and a little, as codes widen outwards
    assert bool(((heard - x).abs() <= 1.02 * step).all())


def test_what_is_no_wave_is_refused() -> None:
    with pytest.raises(BadInput, match=r"samples from -1 to 1: must lie from 0 to 1, with silence at 0\.5; scale"):
        mu_law_codes(torch.tensor([-1.0, 1.0]), 256)
    with pytest.raises(BadInput, match=r"samples from nan to nan: must lie from 0 to 1"):
        mu_law_codes(torch.tensor([0.5, math.nan]), 256)
