"""Expected stops against every path, decided stops against expected ones, and float32 against float64.

Shape legend: R rows, T target positions, S source positions.
"""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pretrain.attention import monotonic
from pretrain.attention.monotonic import MonotonicAttention, MonotonicConfig, expected_stops, hard_stops
from tests.pretrain.attention.stop_paths import enumerated, one_position

Stops = Callable[[Tensor], Tensor]


def looped(logits_RTS: Tensor) -> Tensor:
    """The recurrence of the paper, cell by cell, in float64."""
    p = logits_RTS.double().sigmoid()
    passing = (-logits_RTS.double()).sigmoid()
    alpha, before = torch.zeros_like(p), torch.zeros_like(p[:, 0])
    before[:, 0] = 1.0
    for i in range(p.shape[1]):
        q = before[:, 0]
        for j in range(p.shape[2]):
            if j:
                q = passing[:, i, j - 1] * q + before[:, j]
            alpha[:, i, j] = p[:, i, j] * q
        before = alpha[:, i]
    return alpha


def closed_form(logits_RTS: Tensor) -> Tensor:
    """Mutant: the paper's equation 13 by cumulative products, the divisor kept from 0 as in public code."""
    p = logits_RTS.sigmoid()
    ones = torch.ones_like(p[:, :, :1])
    passed = torch.cat([ones, (1 - p)[:, :, :-1]], dim=2).cumprod(2)
    before, rows = torch.zeros_like(p[:, 0]), []
    before[:, 0] = 1.0
    for i in range(p.shape[1]):
        before = p[:, i] * passed[:, i] * (before / passed[:, i].clamp(1e-10, 1.0)).cumsum(1)
        rows.append(before)
    return torch.stack(rows, dim=1)


def no_way_back(logits_RTS: Tensor) -> Tensor:
    """Mutant: a target position may not stop where the one before it did."""
    moved = expected_stops(logits_RTS)
    return torch.cat([moved[:, :1], moved[:, 1:].roll(1, dims=2)], dim=1)


def distance_from_paths(stops: Stops, logits_RTS: Tensor) -> float:
    found_RTS = stops(logits_RTS)
    every = [enumerated(p_TS, one_position(p_TS.shape[1])) for p_TS in logits_RTS.sigmoid()]
    return float((found_RTS - torch.stack(every)).abs().max())


@pytest.mark.parametrize(("targets", "sources"), [(1, 1), (1, 5), (4, 1), (3, 5), (5, 4)])
def test_expected_stops_are_the_mean_over_all_paths(targets: int, sources: int) -> None:
    logits_RTS = 2 * torch.randn(3, targets, sources, dtype=torch.float64)
    assert distance_from_paths(expected_stops, logits_RTS) < 1e-12


@pytest.mark.parametrize("mutant", [no_way_back, lambda logits_RTS: logits_RTS.sigmoid()])
def test_other_stops_are_not(mutant: Stops) -> None:
    logits_RTS = 2 * torch.randn(3, 3, 4, dtype=torch.float64)
    assert distance_from_paths(mutant, logits_RTS) > 1e-3


def test_decided_stops_are_the_expected_ones_of_certain_probabilities() -> None:
    """500 draws of shapes and of probabilities that are 0 or 1."""
    for _ in range(500):
        targets, sources = torch.randint(1, 7, (2,)).tolist()
        share = torch.rand(())
        logits_RTS = torch.where(torch.rand(2, targets, sources) < share, 1e4, -1e4)
        assert torch.equal(hard_stops(logits_RTS), expected_stops(logits_RTS))


def test_a_stream_that_goes_on_after_its_stop_is_another() -> None:
    """Mutant: the search begins behind the last stop, not at it."""
    logits_RTS = torch.full((1, 3, 4), 1e4)
    assert not torch.equal(hard_stops(logits_RTS), torch.eye(4)[None, :3])
    assert torch.equal(hard_stops(logits_RTS), torch.eye(4)[None, [0, 0, 0]])


def test_a_row_never_holds_more_than_the_row_before() -> None:
    """Mass is lost past the end, and never comes back; none is negative."""
    alpha_RTS = expected_stops(3 * torch.randn(8, 12, 9, dtype=torch.float64))
    mass_RT = alpha_RTS.sum(-1)
    assert float(alpha_RTS.min()) >= 0
    assert float(mass_RT.max()) <= 1 + 1e-12
    assert float(mass_RT.diff(dim=1).max()) <= 1e-12


@pytest.mark.parametrize(("targets", "sources"), [(30, 60), (200, 400)])
@pytest.mark.parametrize("spread", [1.0, 6.0])
def test_float32_stays_with_float64_on_long_sources(targets: int, sources: int, spread: float) -> None:
    logits_RTS = spread * torch.randn(1, targets, sources) - 1.0
    exact_RTS = looped(logits_RTS)
    assert float((expected_stops(logits_RTS) - exact_RTS).abs().max()) < 1e-5
    assert float(expected_stops(logits_RTS).sum(-1).sub(exact_RTS.sum(-1)).abs().max()) < 1e-4


@pytest.mark.parametrize(("targets", "sources"), [(30, 60), (200, 400)])
def test_the_closed_form_loses_mass_there(targets: int, sources: int) -> None:
    few_RTS = torch.randn(1, 3, 5, dtype=torch.float64)
    assert float((closed_form(few_RTS) - looped(few_RTS)).abs().max()) < 1e-5, "a right form"
    logits_RTS = 6.0 * torch.randn(1, targets, sources) - 1.0
    exact_RTS = looped(logits_RTS)
    assert float((closed_form(logits_RTS) - exact_RTS).abs().max()) > 1e-2


def test_small_probabilities_of_passing_keep_their_digits() -> None:
    """Mutant: 1 - p in float32 is 0 beyond a logit of 17; what passes at 20 stops at the next position."""
    logits_RTS = torch.tensor([[[20.0, 1e4]]])
    passed = math.exp(-20) / (1 + math.exp(-20))
    assert float(expected_stops(logits_RTS)[0, 0, 1]) == pytest.approx(passed, rel=1e-5)
    assert float(1 - logits_RTS.sigmoid()[0, 0, 0]) == 0


def built(**settings: float) -> MonotonicAttention:
    config = MonotonicConfig.model_validate({"kind": "monotonic", "width": 4, **settings})
    return config.build(3, 2)


def stop_logits(attention: MonotonicAttention, monkeypatch: pytest.MonkeyPatch, *shape: int) -> Tensor:
    """[R, T, S - 1] of random inputs, without the last, which is certain."""
    rows, targets, sources = shape
    seen: list[Tensor] = []
    monkeypatch.setattr(monotonic, "expected_stops", lambda logits: seen.append(logits) or expected_stops(logits))
    torch.manual_seed(0)
    s_RTQ, h_RSM = torch.randn(rows, targets, 3), torch.randn(rows, sources, 2)
    torch.manual_seed(1)
    with torch.no_grad():
        attention(s_RTQ, h_RSM, torch.ones(rows, sources, dtype=torch.bool), hard=False)
    return seen[0][..., :-1]


def test_stop_logits_start_around_the_one_that_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """The energies are the scale times at most |tanh|, whose sum over a unit direction is at most 2 of width 4."""
    for initial in (-3.0, 5.0):
        attention = built(initial_stop_logit=initial, noise_std=0.0)
        logits_RTS = stop_logits(attention, monkeypatch, 2, 3, 40)
        assert float((logits_RTS - initial).abs().max()) <= 2
        assert float((logits_RTS - initial).abs().max()) > 0


@pytest.mark.parametrize("std", [0.3, 2.0])
def test_noise_has_its_standard_deviation_and_each_cell_its_own(std: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mutants: the variance in place of the deviation; one number for all sources, targets or rows."""
    attention, shape = built(noise_std=std), (8, 30, 61)
    noise_RTS = stop_logits(attention.train(), monkeypatch, *shape) - stop_logits(attention.eval(), monkeypatch, *shape)
    count = noise_RTS.numel()
    assert float(noise_RTS.std()) == pytest.approx(std, rel=4 / (2 * count) ** 0.5)
    assert abs(float(noise_RTS.mean())) < 4 * std / count**0.5
    for dim in range(3):
        here, there = noise_RTS.narrow(dim, 1, shape[dim] - 2), noise_RTS.narrow(dim, 0, shape[dim] - 2)
        assert abs(float((here * there).mean())) / std**2 < 5 / here.numel() ** 0.5


def test_gradients_are_right_and_finite_for_any_logits() -> None:
    logits_RTS = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(expected_stops, (logits_RTS,))
    huge_RTS = (1e4 * torch.randn(2, 30, 60)).requires_grad_()
    (expected_stops(huge_RTS) * torch.randn(2, 30, 60)).sum().backward()
    assert huge_RTS.grad is not None
    assert bool(huge_RTS.grad.isfinite().all())


def test_skewing_is_undone() -> None:
    x_RTS = torch.randn(2, 5, 3)
    skewed_RTD = monotonic._skewed(x_RTS)
    assert skewed_RTD.shape == (2, 5, 7)
    assert all(torch.equal(skewed_RTD[:, i, i : i + 3], x_RTS[:, i]) for i in range(5))
    assert torch.equal(monotonic._unskewed(skewed_RTD, 3), x_RTS)
