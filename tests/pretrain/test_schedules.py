"""Schedules against their definitions at the points that fix them."""

import math

import pytest

from pretrain.schedules import ScheduleConfig


@pytest.mark.parametrize("kind", ["constant", "linear", "cosine", "wsd"])
def test_warm_up_is_linear_and_reaches_the_peak(kind: str) -> None:
    schedule = ScheduleConfig(kind=kind, warmup_steps=4)
    assert [schedule.factor(step, 100) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert schedule.factor(4, 100) == 1.0


@pytest.mark.parametrize("kind", ["linear", "cosine", "wsd"])
def test_the_end_is_the_final_fraction(kind: str) -> None:
    assert ScheduleConfig(kind=kind, warmup_steps=10, final_fraction=0.1).factor(100, 100) == pytest.approx(0.1)


def test_cosine_is_half_way_at_half_time() -> None:
    schedule = ScheduleConfig(kind="cosine", warmup_steps=10, final_fraction=0.2)
    assert schedule.factor(55, 100) == pytest.approx(0.6)
    assert schedule.factor(30, 90) == pytest.approx(0.2 + 0.8 * 0.5 * (1 + math.cos(math.pi / 4)))


def test_wsd_is_stable_then_falls_linearly() -> None:
    schedule = ScheduleConfig(kind="wsd", decay_fraction=0.25)
    assert [schedule.factor(step, 100) for step in (0, 50, 75)] == [1.0, 1.0, 1.0]
    assert schedule.factor(90, 100) == pytest.approx(0.4)


def test_constant_stays() -> None:
    assert ScheduleConfig(kind="constant").factor(10**6, 10) == 1.0
