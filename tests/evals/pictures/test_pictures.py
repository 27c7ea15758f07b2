"""Pictures: every pixel where it belongs, sound that comes back, and each ability of a model shown."""

import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.image import imread
from torch import Tensor

from data_pipeline.batch import VectorBatch
from data_pipeline.config import BadInput
from data_pipeline.streams.vectors import Vectors
from evals.pictures.gallery import COLUMNS, HIDDEN, ROWS, galleries
from evals.pictures.images import grid_of, images_of, write_png
from evals.pictures.points import write_points
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


def on_device(name: str) -> type:
    """Doubles that refuse what is not on the device; what they make comes back on the CPU, as after a GPU's work."""

    class There(Doubles):
        def sample_of(self, labels_N: Tensor) -> Tensor:
            assert labels_N.device.type == name
            return super().sample_of(torch.zeros(labels_N.shape))

        def complete(self, values_ND: Tensor, known_ND: Tensor) -> Tensor:
            assert values_ND.device.type == known_ND.device.type == name
            return torch.zeros(values_ND.shape)

        def encode(self, batch: VectorBatch) -> Tensor:
            assert batch.values.device.type == batch.labels.device.type == name
            return torch.zeros(batch.values.shape)

    return There


def test_batches_go_to_the_models_device() -> None:
    found = list(
        galleries(on_device("meta")(), HELD_OUT, shape=SHAPE, num_classes=3, seed=0, device=torch.device("meta"))
    )
    assert len(found) == 8
    assert all(one.values_ND.device.type == "cpu" for one in found)


@pytest.mark.parametrize(("count", "paths"), [(1, 0), (2, 1), (9, 4), (15, 7), (16, 8)])
def test_few_held_out_images_give_smaller_galleries(count: int, paths: int) -> None:
    few = Vectors(HELD_OUT.values[:count], HELD_OUT.labels[:count])
    found = {one.name: one for one in galleries(Doubles(), few, shape=SHAPE, num_classes=None, seed=0)}
    shown = min(count, COLUMNS)
    assert found["reconstructions"].columns == shown
    assert torch.allclose(found["reconstructions"].values_ND[shown:], torch.from_numpy(few.values[:shown]))
    assert len(found["completions"].values_ND) == min(count, ROWS) * COLUMNS
    assert ("interpolations" in found) == (paths > 0)
    if paths:
        ends = found["interpolations"].values_ND.reshape(paths, COLUMNS, SIZE)
        assert torch.allclose(ends[:, -1], torch.from_numpy(few.values[paths : 2 * paths]))


def test_what_lies_beyond_black_and_white_is_cut_off(tmp_path: Path) -> None:
    grid = grid_of(torch.tensor([[[[-3.0, 0.5, 7.0]]]]), scale=1)
    assert grid[1, 1:4, 0].tolist() == [0.0, 0.5, 1.0]
    write_png(tmp_path / "grid.png", grid)
    assert imread(tmp_path / "grid.png")[1, 1:4, 0].tolist() == pytest.approx([0.0, 0.5, 1.0], abs=1 / 255)


def test_a_wave_beyond_full_scale_is_cut_off(tmp_path: Path) -> None:
    """It does not turn round to the other side."""
    write_wav(tmp_path / "loud.wav", torch.tensor([-5.0, -1.0, 0.0, 1.0, 5.0]), 8000)
    with wave.open(str(tmp_path / "loud.wav")) as file:
        read = np.frombuffer(file.readframes(5), "<i2")
    assert read.tolist() == [-32767, -32767, 0, 32767, 32767]


def test_decibels_are_of_power() -> None:
    """A tenth of the amplitude is 20 decibels less; Hann windows let a tone between two bins leak but little."""
    time_T = torch.arange(4096) / 8000
    loud_T, soft_T = (
        amplitude * torch.sin(2 * torch.pi * tone * time_T) for amplitude, tone in ((1, 1000), (0.1, 3000))
    )
    spectrum = decibels(loud_T + soft_T)
    bins = [round(tone / 4000 * (len(spectrum) - 1)) for tone in (1000, 3000)]
    np.testing.assert_allclose(spectrum[bins[0]], 0.0, atol=1e-2)
    np.testing.assert_allclose(spectrum[bins[1]], -20.0, atol=1e-2)
    between = decibels(torch.sin(2 * torch.pi * (1000 + 8000 / 256 / 2) * time_T))
    assert between[bins[1]].max() < -75, "without a window it is -33"


def drawn(monkeypatch: pytest.MonkeyPatch, write: Any) -> Figure:
    """The figure that is written."""
    kept: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *place, **how: kept.append(figure))
    write()
    return kept[0]


def test_spectrograms_have_low_tones_at_the_bottom_and_seconds_to_the_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waves_NT = torch.stack([torch.sin(2 * torch.pi * 500 * torch.arange(8000) / 8000), torch.zeros(8000)])
    figure = drawn(monkeypatch, lambda: write_spectrograms(tmp_path / "two.png", waves_NT, 8000))
    line, spectrum, second, _ = figure.axes
    assert line.get_lines()[0].get_xdata()[-1] == pytest.approx(7999 / 8000)
    np.testing.assert_array_equal(line.get_lines()[0].get_ydata(), waves_NT[0].numpy())
    np.testing.assert_array_equal(second.get_lines()[0].get_ydata(), waves_NT[1].numpy())
    (image,) = spectrum.get_images()
    assert image.origin == "lower"
    assert list(image.get_extent()) == [0, 1, 0, 4]
    assert (spectrum.get_xlabel(), spectrum.get_ylabel()) == ("s", "kHz")
    np.testing.assert_array_equal(image.get_array(), decibels(waves_NT[0]))


def test_points_are_the_datas_on_the_left_and_the_models_on_the_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points_N2, data_N2 = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[5.0, -6.0]])
    figure = drawn(monkeypatch, lambda: write_points(tmp_path / "points.png", points_N2, data_N2))
    for axes, title, cloud_N2 in zip(figure.axes, ("data", "model"), (data_N2, points_N2), strict=True):
        assert axes.get_title() == title
        np.testing.assert_array_equal(axes.collections[0].get_offsets(), cloud_N2.numpy())
    assert figure.axes[0].get_xlim() == figure.axes[1].get_xlim()
    write_points(tmp_path / "points", points_N2, data_N2)


@pytest.mark.parametrize("write", [
    lambda path: write_points(path, torch.zeros(2, 2), torch.zeros(2, 2)),
    lambda path: write_spectrograms(path, torch.zeros(1, 300), 8000),
])  # fmt: skip
def test_a_picture_is_a_png_where_it_was_asked_for_whatever_its_name(tmp_path: Path, write: Any) -> None:
    write(tmp_path / "picture.of_it")
    assert (tmp_path / "picture.of_it").read_bytes().startswith(b"\x89PNG")
