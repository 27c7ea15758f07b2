"""Mean distance and smoothness of paths whose values are worked out by hand: data are the axes, one angle each."""

import math

import pytest
import torch
from torch import Tensor

from data_pipeline.config import BadInput
from evals.metrics import interpolation
from evals.metrics.interpolation import line_interpolation

AXES = 8
ANGLES = torch.arange(AXES, dtype=torch.float64) * (2 * math.pi / AXES)


def measured(*path: int) -> tuple[float, float]:
    """Of one path through these axes."""
    distance, smoothness = line_interpolation(torch.eye(AXES)[list(path)][None], torch.eye(AXES), ANGLES, protocol={})
    return distance.value, smoothness.value


def check_perfect() -> None:
    for path in ((0, 1, 2, 3), (3, 2, 1, 0), (6, 7, 0, 1), (1, 0, 7, 6), (5, 7)):
        distance, smoothness = measured(*path)
        assert distance == pytest.approx(0, abs=1e-12)
        assert smoothness == pytest.approx(0, abs=1e-12)


def test_a_perfect_interpolation_has_neither() -> None:
    """Forwards, backwards, and over the end of the circle."""
    check_perfect()


def test_angles_that_do_not_close_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpolation, "_on_circle", lambda difference, period: difference)
    with pytest.raises(AssertionError):
        check_perfect()


def test_an_abrupt_interpolation() -> None:
    """All of the way in one of three steps: 1 - 1/3. And 3 of 4 parts in one of two: 3/4 - 1/2."""
    assert measured(0, 0, 3, 3)[1] == pytest.approx(2 / 3)
    assert measured(3, 3, 0, 0)[1] == pytest.approx(2 / 3)
    assert measured(0, 2, 3)[1] == pytest.approx(2 / 3 - 1 / 2)


def test_a_detour_is_longer_than_the_way() -> None:
    """0, 3, 2: the first step is 3/2 of the way."""
    assert measured(0, 3, 2)[1] == pytest.approx(3 / 2 - 1 / 2)


def blended() -> Tensor:
    """The middle of a path from axis 0 to axis 1 in data space is as near to both: 1 - cos 45 degrees."""
    first, last = torch.eye(AXES)[0], torch.eye(AXES)[1]
    return torch.stack([first, 0.5 * first + 0.5 * last, last])


def test_interpolation_in_data_space_is_far_from_data() -> None:
    distance, _ = line_interpolation(blended()[None], torch.eye(AXES), ANGLES, protocol={"split": "test"})
    assert distance.value == pytest.approx((1 - math.sqrt(0.5)) / 3)
    assert distance.protocol["split"] == "test"
    longer, _ = line_interpolation(7 * blended()[None], torch.eye(AXES), ANGLES, protocol={})
    assert longer.value == pytest.approx(distance.value), "cosine distance does not know lengths"


def test_a_path_may_go_further_than_half_of_the_circle() -> None:
    """Even steps are perfect, the shorter way to the end or not; an uneven one is measured by the path's own length."""
    for path in ((0, 1, 2, 3, 4, 5), (5, 4, 3, 2, 1, 0), (0, 3, 6), tuple(range(8)), (*range(8), 0, 1)):
        assert measured(*path)[1] == pytest.approx(0, abs=1e-12)
    assert measured(0, 1, 2, 5)[1] == pytest.approx(3 / 5 - 1 / 3)
    assert measured(0, 3, 6, 7)[1] == pytest.approx(3 / 7 - 1 / 3)


def test_a_step_back_is_not_the_largest_step() -> None:
    """0, 2, 7, 1: two forward, three back, two forward, of a way of one."""
    assert measured(0, 2, 7, 1)[1] == pytest.approx(2 - 1 / 3)
    assert measured(1, 7, 2, 0)[1] == pytest.approx(2 - 1 / 3)


def test_a_closed_path_is_left_out_and_counted() -> None:
    paths = torch.eye(AXES)[torch.tensor([[0, 0, 2], [1, 2, 1], [3, 3, 3]])]
    distance, smoothness = line_interpolation(paths, torch.eye(AXES), ANGLES, protocol={})
    assert (distance.count, smoothness.count) == (3, 1)
    assert smoothness.value == pytest.approx(1 / 2)
    assert smoothness.protocol["paths_without_a_way"] == 2


def test_means_over_paths() -> None:
    paths = torch.eye(AXES)[torch.tensor([[0, 1, 2], [0, 0, 2]])]
    distance, smoothness = line_interpolation(paths, torch.eye(AXES), ANGLES, protocol={})
    assert (distance.count, smoothness.count) == (2, 2)
    assert smoothness.value == pytest.approx((0 + 1 / 2) / 2)


def test_bad_paths() -> None:
    with pytest.raises(BadInput, match="every path ends at the angle where it began"):
        measured(1, 2, 1)
    with pytest.raises(BadInput, match=r"must be \[N, P, D\]"):
        line_interpolation(torch.eye(AXES), torch.eye(AXES), ANGLES, protocol={})
    with pytest.raises(BadInput, match="3 angles for 8 data"):
        line_interpolation(torch.eye(AXES)[None], torch.eye(AXES), ANGLES[:3], protocol={})
