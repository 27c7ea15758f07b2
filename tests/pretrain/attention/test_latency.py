"""Expected delays against the stop process drawn, and the cost against the metric of decided paths.

Shape legend: R rows, T target positions, S source positions.
"""

import random

import pytest
import torch
from torch import Tensor

from evals.metrics.latency import ReadPath
from evals.metrics.latency import differentiable_average_lagging as dal_of_path
from pretrain.attention.latency import differentiable_average_lagging, expected_delays
from pretrain.attention.monotonic import expected_stops
from tests.pretrain.attention.stop_paths import drawn

DRAWS = 20_000


def read_at_stop(stop: int | None, length: int) -> int:
    return length if stop is None else min(stop + 1, length)


def errors_of_drawn_delays(delays_T: Tensor, logits_TS: Tensor, length: int) -> Tensor:
    """[T] how many standard errors the delays are from the mean of drawn paths."""
    draw, p_TS = random.Random(7), logits_TS.sigmoid().tolist()
    seen = [[read_at_stop(stop, length) for stop in drawn(p_TS, draw)] for _ in range(DRAWS)]
    seen_NT = torch.tensor(seen, dtype=torch.float64)
    return (seen_NT.mean(0) - delays_T).abs() / (seen_NT.std(0) / DRAWS**0.5)


def test_expected_delays_are_those_of_the_stop_process() -> None:
    """Five source tokens, the fifth position of six their last; much of the mass runs past the end."""
    torch.manual_seed(0)
    logits_TS = torch.randn(4, 6, dtype=torch.float64) - 1.0
    stops_1TS, length_1 = expected_stops(logits_TS[None]), torch.tensor([5])
    delays_T = expected_delays(stops_1TS, length_1)[0]
    assert float(stops_1TS.sum(-1).min()) < 0.8
    assert float(errors_of_drawn_delays(delays_T, logits_TS, 5).max()) < 4
    without_lost_T = (stops_1TS[0] * torch.arange(1, 7).clamp(max=5)).sum(-1)
    assert float(errors_of_drawn_delays(without_lost_T, logits_TS, 5).max()) > 4, "mutant: lost mass waits for nothing"
    end_as_token_T = (stops_1TS[0] * torch.arange(1, 7)).sum(-1) + 6 * (1 - stops_1TS[0].sum(-1))
    assert float(errors_of_drawn_delays(end_as_token_T, logits_TS, 5).max()) > 4, "mutant: the end is one more token"


def decided(reads: list[int], source: int, target: int) -> float:
    """The cost of one path, in a row that is wider than its target."""
    padded = torch.tensor([reads + [source] * (6 - len(reads))], dtype=torch.float64)
    stops_1TS = torch.nn.functional.one_hot(padded.long() - 1, 9).double()
    delays_1T = expected_delays(stops_1TS, torch.tensor([source]))
    return float(differentiable_average_lagging(delays_1T, torch.tensor([source]), torch.tensor([target])))


def test_of_decided_paths_it_is_the_metric() -> None:
    draw = random.Random(3)
    for _ in range(200):
        source, target = draw.randint(1, 8), draw.randint(1, 6)
        reads = sorted(draw.randint(1, source) for _ in range(target))
        assert decided(reads, source, target) == pytest.approx(
            dal_of_path(ReadPath(tuple(reads), source, target)), abs=1e-12
        )


def test_cases_by_hand() -> None:
    assert decided([2, 2, 4, 4], 4, 4) == pytest.approx(2.0, abs=1e-12)
    assert decided([1, 2, 3, 4], 4, 4) == pytest.approx(1.0, abs=1e-12)
    assert decided([4, 4, 4, 4], 4, 4) == pytest.approx(4.0, abs=1e-12)
    assert decided([3, 3, 4, 4], 4, 4) == pytest.approx(3.0, abs=1e-12)


def test_waiting_is_not_forgiven() -> None:
    """Mutant: the mean lag without the running maximum, average lagging's flaw, differs where a path waits early."""
    delays_1T, four = torch.tensor([[3.0, 3.0, 4.0, 4.0]]).double(), torch.tensor([4])
    mutant = float((delays_1T - torch.arange(4)).mean())
    assert abs(mutant - float(differentiable_average_lagging(delays_1T, four, four))) > 0.5


def test_the_cost_has_right_gradients_and_none_of_an_empty_target() -> None:
    logits_RTS = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    source_R, target_R = torch.tensor([4, 3]), torch.tensor([3, 0])

    def cost(logits_RTS: Tensor) -> Tensor:
        return differentiable_average_lagging(expected_delays(expected_stops(logits_RTS), source_R), source_R, target_R)

    assert torch.autograd.gradcheck(cost, (logits_RTS,))
    assert float(cost(logits_RTS.detach())[1]) == 0
