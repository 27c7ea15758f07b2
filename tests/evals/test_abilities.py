"""Modes and probes of runs: what is measured, on which split, of whom."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from data_pipeline.batch import VectorBatch
from data_pipeline.digits import DigitsConfig
from data_pipeline.points import EightGaussiansConfig
from data_pipeline.streams.vectors import Vectors
from evals import abilities
from evals.abilities import mode_metrics, probe_metrics

SETTINGS: dict[str, Any] = {"seed": 0, "device": torch.device("cpu"), "protocol": {"run": "a"}}
POINTS = EightGaussiansConfig(kind="eight_gaussians", num_points=640, num_held_out=160)


class Draws(nn.Module):
    """The points of a split, or those of three modes; latents are the points themselves."""

    def __init__(self, modes: int) -> None:
        super().__init__()
        self.modes = modes

    def sample(self, count: int) -> Tensor:
        vectors = POINTS.vectors("train")
        some = vectors.values[vectors.labels < self.modes]
        return torch.from_numpy(some[np.arange(count) % len(some)])

    def encode(self, batch: VectorBatch) -> Tensor:
        return batch.values


@pytest.mark.parametrize("modes", [3, 8])
def test_modes_of_points(modes: int) -> None:
    covered, quality = mode_metrics(Draws(modes), POINTS, **SETTINGS)  # type: ignore[arg-type]
    assert (covered.name, covered.value, quality.name) == ("modes_covered", modes, "high_quality")
    assert quality.value == pytest.approx(1.0, abs=0.005)
    assert quality.count == abilities.DRAWN
    assert quality.protocol["radius_in_deviations"] == 4.0
    assert quality.protocol["standard_deviation"] == POINTS.std
    assert quality.protocol["run"] == "a"


def test_the_probe_learns_from_the_training_split_and_is_tested_on_the_one_asked_for() -> None:
    """Labels of the tested split are turned round: who had trained on it would read them."""
    held_out = POINTS.vectors("test")
    (right,) = probe_metrics(Draws(8), POINTS, held_out, rows=50, **SETTINGS)  # type: ignore[arg-type]
    assert right.name == "linear_probe_accuracy"
    assert right.value > 60
    assert (right.count, right.protocol["train_count"], right.protocol["epochs"]) == (160, 640, 100)
    turned = Vectors(held_out.values, (held_out.labels + 4) % 8)
    (wrong,) = probe_metrics(Draws(8), POINTS, turned, rows=50, **SETTINGS)  # type: ignore[arg-type]
    assert wrong.value < 5


def test_a_probe_of_many_rows_has_fewer_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(abilities, "MOST_UPDATES", 35)
    (found,) = probe_metrics(Draws(8), POINTS, POINTS.vectors("test"), rows=50, **SETTINGS)  # type: ignore[arg-type]
    assert found.protocol["epochs"] == 3


def test_who_cannot_is_not_asked() -> None:
    digits = DigitsConfig(kind="digits")
    assert mode_metrics(Draws(8), digits, **SETTINGS) == []  # type: ignore[arg-type]
    nothing: Any = nn.Linear(1, 1)
    assert mode_metrics(nothing, POINTS, **SETTINGS) == []
    assert probe_metrics(nothing, POINTS, POINTS.vectors("test"), rows=50, **SETTINGS) == []
