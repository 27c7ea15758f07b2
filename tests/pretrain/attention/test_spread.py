"""MoChA and MILk against brute force over the stop position, and against each other where they meet.

Shape legend: R rows, T target positions, S source positions.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pretrain.attention.chunkwise import spread_over_chunks
from pretrain.attention.infinite_lookback import spread_over_prefixes
from pretrain.attention.monotonic import expected_stops
from tests.pretrain.attention.stop_paths import enumerated, softmax_of_last

TARGETS, SOURCES = 3, 5
Spread = Callable[[Tensor, Tensor], Tensor]


def chunks(width: int) -> Spread:
    return lambda alpha, u: spread_over_chunks(alpha, u, width)


def drawn(scale: float = 2.0, rows: int = 2) -> tuple[Tensor, Tensor]:
    """Logits of stops, and energies."""
    logits_RTS, u_RTS = torch.randn(2, rows, TARGETS, SOURCES, dtype=torch.float64)
    return 2 * logits_RTS, scale * u_RTS


def distance(spread: Spread, width: int, logits_RTS: Tensor, u_RTS: Tensor) -> float:
    """From the mean over all stop paths."""
    found_RTS = spread(expected_stops(logits_RTS), u_RTS)
    rows = zip(logits_RTS.sigmoid(), u_RTS, strict=True)
    every = torch.stack([enumerated(p_TS, softmax_of_last(u_TS, width)) for p_TS, u_TS in rows])
    return float((found_RTS - every).abs().nan_to_num(torch.inf).max())


@pytest.mark.parametrize("width", [1, 2, 3, SOURCES, SOURCES + 3])
@pytest.mark.parametrize("scale", [2.0, 1e4])
def test_chunks_are_the_mean_over_all_stop_paths(width: int, scale: float) -> None:
    assert distance(chunks(width), width, *drawn(scale)) < 1e-12


@pytest.mark.parametrize("scale", [2.0, 1e4])
def test_prefixes_are_the_mean_over_all_stop_paths(scale: float) -> None:
    assert distance(spread_over_prefixes, SOURCES, *drawn(scale)) < 1e-12


def with_one_maximum(alpha_RTS: Tensor, u_RTS: Tensor) -> Tensor:
    """Mutant: the usual sums of exp(u - max of the row), whose divisors vanish far below the maximum."""
    own_RTS = (u_RTS - u_RTS.max(-1, keepdim=True).values).exp()
    return own_RTS * (alpha_RTS / own_RTS.cumsum(-1)).flip(-1).cumsum(-1).flip(-1)


def test_one_maximum_for_a_row_does_only_for_small_energies() -> None:
    assert distance(with_one_maximum, SOURCES, *drawn()) < 1e-12
    u_RTS = torch.linspace(-1e4, 1e4, SOURCES, dtype=torch.float64).expand(2, TARGETS, -1)
    assert distance(with_one_maximum, SOURCES, drawn()[0], u_RTS) > 1e-3
    assert distance(spread_over_prefixes, SOURCES, drawn()[0], u_RTS) < 1e-12


@pytest.mark.parametrize("wrong", [chunks(2), chunks(4), lambda alpha, u: alpha, lambda alpha, u: u.softmax(-1)])
def test_other_readings_are_seen(wrong: Spread) -> None:
    assert distance(wrong, 3, *drawn()) > 1e-3


def test_a_chunk_of_one_is_monotonic_and_of_all_is_infinite_lookback() -> None:
    logits_RTS, u_RTS = drawn(rows=5)
    alpha_RTS = expected_stops(logits_RTS)
    assert torch.equal(spread_over_chunks(alpha_RTS, u_RTS, 1), alpha_RTS)
    whole_RTS = spread_over_chunks(alpha_RTS, u_RTS, SOURCES)
    assert float((whole_RTS - spread_over_prefixes(alpha_RTS, u_RTS)).abs().max()) < 1e-12
    assert float((whole_RTS - alpha_RTS).abs().max()) > 1e-3


@pytest.mark.parametrize("spread", [chunks(1), chunks(3), spread_over_prefixes])
def test_what_is_read_is_what_stops(spread: Spread) -> None:
    logits_RTS, u_RTS = drawn(1e4)
    alpha_RTS = expected_stops(logits_RTS)
    beta_RTS = spread(alpha_RTS, u_RTS)
    assert float(beta_RTS.min()) >= 0
    assert torch.allclose(beta_RTS.sum(-1), alpha_RTS.sum(-1), atol=1e-12)


@pytest.mark.parametrize("spread", [chunks(3), spread_over_prefixes])
def test_float32_is_exact_for_energies_of_ten_thousand(spread: Spread) -> None:
    """On a long source, within rounding of the same numbers in float64."""
    alpha_RTS = expected_stops(torch.randn(2, 30, 60, dtype=torch.float64))
    u_RTS = (1e4 * torch.randn(2, 30, 60)).double()  # numbers that float32 has
    u_RTS[:, :, ::2] = (u_RTS[:, :, 1::2].float() + torch.rand(2, 30, 30)).double()
    exact_RTS = spread(alpha_RTS, u_RTS)
    assert float((spread(alpha_RTS.float(), u_RTS.float()) - exact_RTS).abs().max()) < 1e-5


@pytest.mark.parametrize("spread", [chunks(2), spread_over_prefixes])
def test_gradients(spread: Spread) -> None:
    logits_RTS, u_RTS = (x.requires_grad_() for x in drawn(rows=1))
    assert torch.autograd.gradcheck(lambda logits, u: spread(expected_stops(logits), u), (logits_RTS, u_RTS))
