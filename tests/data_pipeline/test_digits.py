"""The digits: scaled, split, and read as independent vectors."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from data_pipeline.config import BadInput
from data_pipeline.digits import DigitsConfig
from data_pipeline.streams import Stream
from data_pipeline.streams.vectors import Vectors
from data_pipeline.vector_data import as_pixels

CONFIG = DigitsConfig(kind="digits")


def test_the_splits_are_all_images_once() -> None:
    splits = [CONFIG.vectors(split) for split in ("train", "valid", "test")]
    images, labels = load_digits(return_X_y=True)
    every = np.concatenate([np.c_[one.values * 16, one.labels] for one in splits])
    assert np.array_equal(every, np.c_[images, labels][np.random.default_rng(0).permutation(1797)])
    assert [len(one.labels) for one in splits] == [1200, 297, 300]
    assert all(set(one.labels) == set(range(10)) for one in splits)


def test_values_are_scaled_or_binary() -> None:
    plain = CONFIG.vectors("train").values
    binary = DigitsConfig(kind="digits", pixels="threshold").vectors("train").values
    assert plain.dtype == binary.dtype == np.float32
    assert (plain.min(), plain.max()) == (0.0, 1.0)
    assert np.array_equal(binary, (plain > 0.5).astype(np.float32))
    assert CONFIG.fingerprint() != DigitsConfig(kind="digits", pixels="threshold").fingerprint()


def test_an_epoch_has_each_image_at_most_once_in_any_order() -> None:
    stream = CONFIG.stream(reads="vectors", length=None, micro_batches=5, rows=20, seed=3)
    again = CONFIG.stream(reads="vectors", length=None, micro_batches=5, rows=20, seed=3)
    assert isinstance(stream, Stream)
    num_images = len(CONFIG.vectors("train").labels)
    places = [(draw, number) for draw in range(2 * stream.draws_per_epoch) for number in range(5)]
    ids = torch.cat([stream.micro_batch(*place).sample_ids for place in places])
    assert len(ids.unique()) == len(ids) == 2 * (num_images // 100) * 100
    for draw, number in reversed(places[::7]):
        one, other = stream.micro_batch(draw, number), again.micro_batch(draw, number)
        assert torch.equal(one.values, other.values)
        assert torch.equal(one.labels, other.labels)


def test_rows_are_the_images_that_their_ids_say() -> None:
    vectors = CONFIG.vectors("valid")
    stream = CONFIG.stream(reads="vectors", length=None, micro_batches=2, rows=8, seed=0, split="valid")
    draw = stream.draws_per_epoch + 1
    batch = stream.micro_batch(draw, 1)
    rows = batch.sample_ids.numpy() - len(vectors.labels)
    assert np.array_equal(batch.values.numpy(), vectors.values[rows])
    assert np.array_equal(batch.labels.numpy(), vectors.labels[rows])
    assert (
        stream.fingerprint()
        != CONFIG.stream(reads="vectors", length=None, micro_batches=2, rows=8, seed=0).fingerprint()
    )


def test_data_are_hashed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not at every save."""
    stream = CONFIG.stream(reads="vectors", length=None, micro_batches=1, rows=8, seed=0)
    right, asked = Vectors.fingerprint, []
    monkeypatch.setattr(Vectors, "fingerprint", property(lambda self: asked.append(1) or right.fget(self)))
    found = [stream.fingerprint() for _ in range(3)]
    assert len(asked) == 1
    assert found[0] == found[2]
    assert found[0]["data"] == CONFIG.fingerprint()


def test_vectors_have_no_segments() -> None:
    with pytest.raises(BadInput, match=r"length 8: data.kind digits has no segments; leave length out"):
        CONFIG.stream(reads="vectors", length=8, micro_batches=1, rows=1, seed=0)


def test_sampled_pixels_are_drawn_for_each_split() -> None:
    levels_ND, labels_N = np.full((50, 64), 0.5), np.zeros(50)
    drawn = [
        as_pixels(levels_ND, labels_N, "sampled", split=split, seed=3).values for split in ("train", "train", "test")
    ]
    assert np.array_equal(drawn[0], drawn[1])
    assert np.mean(drawn[0] == drawn[2]) == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(50 * 64))


def test_dynamic_pixels_are_drawn_for_each_run() -> None:
    """Of the same image in the same epoch, by the run's seed."""
    data = DigitsConfig(kind="digits", pixels="dynamic")
    by_run = []
    for seed in (3, 3, 4):
        stream = data.stream(reads="vectors", length=None, micro_batches=1, rows=1200, seed=seed)
        batch = stream.micro_batch(0, 0)
        by_run.append(batch.values[batch.sample_ids.argsort()].numpy())
    assert np.array_equal(by_run[0], by_run[1])
    grey = data.vectors("train").values
    open_ND = (grey > 0) & (grey < 1)
    share = np.mean(by_run[0][open_ND] == by_run[2][open_ND])
    goal = np.mean(grey[open_ND] ** 2 + (1 - grey[open_ND]) ** 2)
    assert share == pytest.approx(goal, abs=4 * 0.5 / np.sqrt(open_ND.sum()))


@pytest.mark.parametrize("reads", ["lanes", "samples"])
def test_digits_are_no_tokens(reads: str) -> None:
    with pytest.raises(BadInput, match=f"digits cannot be read as {reads}, only as vectors"):
        CONFIG.stream(reads=reads, length=8, micro_batches=1, rows=1, seed=0)
    assert CONFIG.vocab_size() is None


def test_a_draw_larger_than_the_data_is_refused() -> None:
    with pytest.raises(BadInput, match=r"has \d+ vectors.*micro_batches 100 x rows 100 needs at least 10000"):
        CONFIG.stream(reads="vectors", length=None, micro_batches=100, rows=100, seed=0)
