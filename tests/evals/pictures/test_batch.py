"""A picture of a batch shows the batch: what is in it can be read back from the pixels."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data_pipeline.config import BadInput
from data_pipeline.media.music import KEYS, LOWEST
from data_pipeline.points import EightGaussiansConfig
from evals.pictures.batch import write_batch
from evals.pictures.piano_rolls import write_piano_rolls
from tests.data_pipeline.media.media_files import config


def darkness(path: Path) -> np.ndarray:
    """[H, W] from 0, white, to 1, black."""
    return 1 - np.asarray(Image.open(path).convert("L"), dtype=np.float64) / 255


def test_images_are_side_by_side(tmp_path: Path) -> None:
    data = config("images", tmp_path, tmp_path, ["*"])
    values = torch.rand(4, 12)
    write_batch(tmp_path / "a.png", data, values)
    seen = 1 - darkness(tmp_path / "a.png")
    np.testing.assert_allclose(seen[12:44:8, 12:36:8], values[0].reshape(4, 3), atol=0.01)
    np.testing.assert_allclose(seen[12 + 40 : 44 + 40 : 8, 12 + 32 : 36 + 32 : 8], values[3].reshape(4, 3), atol=0.01)


def test_steps_are_one_roll_and_a_note_is_where_it_should_be(tmp_path: Path) -> None:
    data = config("music", tmp_path, tmp_path, ["*"])
    empty, low, late = (torch.zeros(40, KEYS) for _ in range(3))
    low[0, 24 - LOWEST] = 1
    late[39, 100 - LOWEST] = 1
    seen = []
    for number, values in enumerate((empty, low, late)):
        write_batch(tmp_path / f"{number}.png", data, values)
        seen.append(darkness(tmp_path / f"{number}.png"))
    places = [np.argwhere(one - seen[0] > 0.5).mean(axis=0) for one in seen[1:]]
    height, width = seen[0].shape
    assert places[0][0] > 0.7 * height
    assert places[0][1] < 0.2 * width
    assert places[1][0] < 0.3 * height
    assert places[1][1] > 0.8 * width


def test_waves_and_longer_rolls_have_pictures_too(tmp_path: Path) -> None:
    write_batch(tmp_path / "wave.png", config("audio", tmp_path, tmp_path, ["*"], window=600), torch.rand(2, 600))
    write_batch(tmp_path / "rolls.png", config("music", tmp_path, tmp_path, ["*"], steps=16), torch.ones(2, 16 * KEYS))
    assert darkness(tmp_path / "wave.png").std() > 0.05
    assert darkness(tmp_path / "rolls.png").mean() > 0.4


def test_what_has_no_picture_or_no_place_is_refused(tmp_path: Path) -> None:
    points = EightGaussiansConfig.model_validate({"kind": "eight_gaussians"})
    with pytest.raises(BadInput, match=r"no picture of rows of shape \[2\]"):
        write_batch(tmp_path / "a.png", points, torch.zeros(3, 2))
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="cannot be written"):
        write_piano_rolls(tmp_path / "file" / "a.png", torch.zeros(1, 4, KEYS))
