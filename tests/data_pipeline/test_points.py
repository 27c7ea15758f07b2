"""Points of a known density."""

import math

import numpy as np
import pytest

from data_pipeline.points import EightGaussiansConfig


def test_the_density_is_one_and_the_entropy_is_that_of_the_points() -> None:
    config = EightGaussiansConfig(kind="eight_gaussians")
    line = np.arange(-5, 5, 0.02)
    grid = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    assert np.exp(config.log_density(grid)).sum() * 0.02**2 == pytest.approx(1, abs=1e-9)
    assert config.entropy() == pytest.approx(2.4795, abs=5e-5)
    vectors = config.vectors("train")
    nats_N = -config.log_density(vectors.values.astype(np.float64))
    assert nats_N.mean() == pytest.approx(config.entropy(), abs=4 * nats_N.std() / math.sqrt(len(nats_N)))
    nearest = ((vectors.values[:, None] - config.centres()) ** 2).sum(-1).argmin(1)
    assert (nearest == vectors.labels).mean() > 0.98


def test_modes_far_apart_have_the_entropy_of_the_formula() -> None:
    config = EightGaussiansConfig(kind="eight_gaussians", radius=8.0, std=0.5)
    assert config.entropy() == pytest.approx(math.log(8) + 1 + math.log(2 * math.pi * 0.25), abs=1e-6)


def test_splits_and_seeds_are_other_points() -> None:
    config = EightGaussiansConfig(kind="eight_gaussians", num_points=50, num_held_out=50)
    drawn = [config.vectors(split).values.tobytes() for split in ("train", "valid", "test")]
    other = config.model_copy(update={"point_seed": 1}).vectors("train").values.tobytes()
    assert len({*drawn, other}) == 4
    assert config.vectors("train").values.tobytes() == drawn[0]
