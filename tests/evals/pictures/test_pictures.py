"""Pictures: every pixel where it belongs, sound that comes back, and each ability of a model shown."""

import wave
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from torch import Tensor

from data_pipeline.batch import VectorBatch
from data_pipeline.config import BadInput
from data_pipeline.streams.vectors import Vectors
from evals.pictures.gallery import COLUMNS, HIDDEN, ROWS, galleries
from evals.pictures.images import grid_of, images_of, write_png
from evals.pictures.waves import decibels, write_spectrograms, write_wav

SHAPE, SIZE = (1, 4, 2), 8
HELD_OUT = Vectors(np.random.default_rng(0).random((40, SIZE), dtype=np.float32), np.arange(40) % 3)


class Doubles:
    """Latents are twice the values; draws are their own labels; what is missing is drawn as a quarter."""

    def sample(self, count: int) -> Tensor:
        return torch.rand(count, SIZE)

    def sample_of(self, labels_N: Tensor) -> Tensor:
        return labels_N[:, None].expand(-1, SIZE) / 10

    def complete(self, values_ND: Tensor, known_ND: Tensor) -> Tensor:
        return torch.where(known_ND, values_ND, 0.25)

    def encode(self, batch: VectorBatch) -> Tensor:
        return 2 * batch.values

    def decode(self, latents_NZ: Tensor) -> Tensor:
        return latents_NZ / 2


def shown() -> dict[str, Tensor]:
    found = galleries(Doubles(), HELD_OUT, shape=SHAPE, num_classes=3, seed=0, count=9)
    return {one.name: one.values_ND.reshape(-1, one.columns, SIZE) for one in found}


def test_a_grid_has_each_image_in_its_place_between_white_lines(tmp_path: Path) -> None:
    images_NCHW = torch.rand(5, 3, 4, 2)
    grid = grid_of(images_NCHW, columns=3, scale=1)
    assert grid.shape == (2 * 5 + 1, 3 * 3 + 1, 3)
    assert torch.equal(grid[6:10, 4:6], images_NCHW[4].permute(1, 2, 0))
    assert bool((grid[5] == 1).all() and (grid[:, 3] == 1).all() and (grid[6:, 7:] == 1).all())
    write_png(tmp_path / "new" / "grid.png", grid)
    read = torch.from_numpy(imread(tmp_path / "new" / "grid.png"))[..., :3]
    assert torch.allclose(read, grid, atol=1 / 255)
    with pytest.raises(BadInput, match=r"rows of shape \[2\] are no images"):
        images_of(torch.zeros(3, 2), (2,))
    with pytest.raises(BadInput, match=r"grid.png: cannot be written"):
        write_png(tmp_path / "new" / "grid.png" / "grid.png", grid)


def test_each_ability_has_its_gallery() -> None:
    found = shown()
    of_latents = {"reconstructions", "interpolations", "spherical_interpolations", "attributes", "traversals"}
    assert set(found) == {"samples", "classes", "completions", *of_latents}
    assert found["samples"].shape == (3, 3, SIZE)
    assert torch.allclose(found["classes"], torch.arange(3)[:, None, None] / 10)
    values = torch.from_numpy(HELD_OUT.values)
    row = found["completions"][2]
    assert torch.equal(row[0], values[2])
    assert row[1, :4].tolist() == values[2, :4].tolist()
    assert row[1, 4:].tolist() == [HIDDEN] * 4
    assert torch.equal(row[2:, 4:], torch.full((COLUMNS - 2, 4), 0.25))
    assert torch.allclose(found["reconstructions"][0], found["reconstructions"][1])
    path = found["interpolations"]
    assert torch.allclose(path[:, 0], values[:ROWS])
    assert torch.allclose(path[:, -1], values[ROWS : 2 * ROWS])
    assert torch.allclose(path.diff(n=2, dim=1), torch.zeros(ROWS, COLUMNS - 2, SIZE), atol=1e-6)
    turned, begin, end = found["spherical_interpolations"], values[:ROWS], values[ROWS : 2 * ROWS]
    angle = torch.cosine_similarity(begin, end).arccos()[:, None]
    assert torch.allclose(turned[:, [0, -1]], path[:, [0, -1]], atol=1e-5)
    third = (torch.sin(angle * 2 / 3) * begin + torch.sin(angle / 3) * end) / torch.sin(angle)
    assert torch.allclose(turned[:, (COLUMNS - 1) // 3], third, atol=1e-5)
    attributes = found["attributes"]
    means = [values[np.arange(40) % 3 == label].mean(0) for label in range(3)]
    assert torch.allclose(attributes[:, 0], values[:3])
    for label in range(3):
        assert torch.allclose(
            attributes[label, -1] - attributes[label, 0], means[(label + 1) % 3] - means[label], atol=1e-5
        )
    moved = found["traversals"]
    for place in range(SIZE):
        others = [other for other in range(SIZE) if other != place]
        assert torch.allclose(moved[place][:, others], values[0, others].expand(COLUMNS, -1))
        assert torch.allclose(
            moved[place, [0, -1], place], torch.stack([values[:, place].min(), values[:, place].max()])
        )


def test_of_coloured_images_the_lower_half_is_hidden() -> None:
    class Completes:
        complete = Doubles.complete

    (only,) = galleries(
        Completes(), Vectors(np.ones((2, 24), np.float32), np.zeros(2)), shape=(3, 4, 2), num_classes=None, seed=0
    )
    drawn = only.values_ND.reshape(2, COLUMNS, 3, 4, 2)
    assert bool((drawn[:, 2:, :, :2] == 1).all() and (drawn[:, 2:, :, 2:] == 0.25).all())
    assert bool((drawn[:, 1, :, :2] == 1).all() and (drawn[:, 1, :, 2:] == HIDDEN).all())


@pytest.mark.parametrize(("labels", "many"), [(np.full(40, -100), 0), (np.zeros(40, np.int64), 0), (np.arange(40), 8)])
def test_attributes_need_two_classes(labels: np.ndarray, many: int) -> None:
    found = galleries(Doubles(), Vectors(HELD_OUT.values, labels), shape=SHAPE, num_classes=None, seed=0)
    assert [len(one.values_ND) // COLUMNS for one in found if one.name == "attributes"] == [many] * bool(many)


def test_opposite_latents_are_joined_by_a_straight_line() -> None:
    values = np.repeat(np.array([[1.0], [-1.0]], np.float32), 8, 0)
    found = {
        one.name: one.values_ND
        for one in galleries(
            Doubles(), Vectors(values.repeat(SIZE, 1), np.zeros(16)), shape=SHAPE, num_classes=None, seed=0
        )
    }
    assert torch.equal(found["spherical_interpolations"], found["interpolations"])


def test_who_can_only_draw_shows_only_draws() -> None:
    class Draws:
        sample = Doubles.sample

    (only,) = galleries(Draws(), HELD_OUT, shape=SHAPE, num_classes=None, seed=0)
    assert only.name == "samples"
    (again,) = galleries(Draws(), HELD_OUT, shape=SHAPE, num_classes=None, seed=0)
    assert torch.equal(only.values_ND, again.values_ND)


def test_sound_comes_back_and_its_tone_is_where_it_belongs(tmp_path: Path) -> None:
    rate, tone = 8000, 1000
    wave_T = 0.5 * torch.sin(2 * torch.pi * tone * torch.arange(4000) / rate)
    write_wav(tmp_path / "tone.wav", wave_T, rate)
    with wave.open(str(tmp_path / "tone.wav")) as file:
        assert (file.getframerate(), file.getnchannels(), file.getnframes()) == (rate, 1, 4000)
        read = np.frombuffer(file.readframes(4000), "<i2") / 32767
    np.testing.assert_allclose(read, wave_T.numpy(), atol=0.6 / 32767)
    spectrum = decibels(wave_T)
    assert (spectrum.argmax(0) == round(tone / (rate / 2) * (len(spectrum) - 1))).all()
    assert decibels(torch.zeros(10)).shape[1] == 1
    write_spectrograms(tmp_path / "tone.png", wave_T[None], rate)
    assert (tmp_path / "tone.png").read_bytes().startswith(b"\x89PNG")
