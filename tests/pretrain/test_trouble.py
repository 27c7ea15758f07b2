"""What counts as trouble, and which draws are left out for it."""

import math
import random

import numpy as np
import pytest

from data_pipeline.config import BadInput
from pretrain import config
from pretrain.experiment import Experiment
from pretrain.trouble import Judge, TroubleConfig, next_draw, robust_score, window_before


def test_the_score_is_the_distance_from_the_median_in_robust_deviations() -> None:
    chance = np.random.default_rng(0)
    for count in (8, 9, 128):
        values, value = chance.normal(3.0, 0.2, count).tolist(), float(chance.normal(3.0, 1.0))
        median = np.median(values)
        expected = (value - median) / (1.4826 * np.median(np.abs(values - median)))
        assert robust_score(value, values) == pytest.approx(expected, rel=1e-12)
        assert robust_score(5 * value + 7, [5 * v + 7 for v in values]) == pytest.approx(expected, rel=1e-9)


def test_the_score_estimates_standard_deviations_and_outliers_do_not_move_it() -> None:
    values = np.random.default_rng(0).normal(0.0, 2.0, 100_001).tolist()
    assert robust_score(8.0, values) == pytest.approx(4.0, rel=0.02), "8 is 4 of their standard deviations"
    spoiled = values[:-20_000] + [1e9] * 20_000
    assert robust_score(8.0, spoiled) > 2.0, (
        "a fifth of outliers moves it a little; a mean and a deviation would be lost"
    )
    assert abs(8.0 - np.mean(spoiled)) / np.std(spoiled) < 1.0


def test_equal_losses_have_no_spread() -> None:
    assert robust_score(1.0, [1.0] * 9) == 0.0
    assert robust_score(1.1, [1.0] * 9) > 10_000
    assert robust_score(math.nextafter(1.0, 2.0), [1.0] * 9) < 1e-6, "rounding is no spike"
    assert robust_score(0.9, [1.0] * 9) < 0.0


def test_left_out_draws_by_brute_force() -> None:
    chance = random.Random(0)
    for _ in range(300):
        skipped = [(first, first + chance.randint(0, 4)) for first in chance.choices(range(30), k=chance.randint(0, 4))]
        left_out = {draw for first, last in skipped for draw in range(first, last + 1)}
        draw, length = chance.randint(0, 30), chance.randint(1, 6)
        expected = next(d for d in range(draw, 100) if d not in left_out)
        assert next_draw(draw, skipped) == expected
        first, last = window_before(expected, length, skipped)
        inside = [d for d in range(first, last + 1) if d not in left_out]
        assert last == expected
        assert len(inside) == min(length, len([d for d in range(expected + 1) if d not in left_out]))
        assert first == 0 or first not in left_out


def judge(**settings: object) -> Judge:
    return Judge(TroubleConfig.model_validate({"spike": "skip", "history": 8, **settings}), ("a", "b"))


def test_spikes_are_looked_for_once_there_is_history_of_that_player() -> None:
    found = judge()
    for loss in (1.0, 1.1, 0.9, 1.05, 0.95, 1.02, 0.98):
        found.take("a", loss)
    assert found.of_loss("a", 50.0) == (None, None)
    found.take("a", 1.0)
    kind, score = found.of_loss("a", 50.0)
    assert kind == "spike"
    assert score is not None
    assert score > 100
    assert found.of_loss("b", 50.0) == (None, None)
    assert found.of_loss("a", 1.15)[0] is None
    assert found.of_loss("a", -50.0)[0] is None, "a fall is no trouble"


def test_without_a_policy_spikes_are_taken_and_nothing_is_kept() -> None:
    found = judge(spike=None)
    for loss in range(20):
        found.take("a", loss)
    assert found.of_loss("a", 1e9) == (None, None)
    assert found.state() == {"a": [], "b": []}
    assert found.of_loss("a", math.nan) == ("not_finite", None)
    assert found.of_loss("a", -math.inf) == ("not_finite", None)


def test_a_restored_judge_judges_alike() -> None:
    found, restored = judge(), judge()
    chance = random.Random(0)
    for _ in range(11):
        found.take("a", chance.random() / 3)
    restored.restore(found.state())
    assert restored.of_loss("a", 0.4) == found.of_loss("a", 0.4)
    assert restored.state() == found.state()
    assert len(found.state()["a"]) == 8


def test_a_roll_back_needs_checkpoints_from_before_its_window() -> None:
    recipe = config.recipe_path("tiny_gpt")
    overrides = ("trouble.spike=roll_back", "checkpoint.every=5", "checkpoint.keep=3")
    assert config.load(Experiment, recipe, (*overrides, "trouble.window=10")).trouble.rolls_back
    with pytest.raises(BadInput, match=r"checkpoint\.keep=3 with checkpoint\.every=5 .* trouble\.window=11"):
        config.load(Experiment, recipe, (*overrides, "trouble.window=11"))
