"""IDX files as vectors: divided, scaled, binarized by rule; what is broken is told."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from data_pipeline.config import BadInput
from data_pipeline.mnist import IMAGES as MAGIC
from data_pipeline.mnist import MnistConfig, read_idx
from data_pipeline.streams.stream import Draws
from data_pipeline.streams.vectors import Vectors, VectorStream, binary_draw
from tests.evals.benchmark_data import benchmark_data

GENERATOR = np.random.default_rng(0)
IMAGES = GENERATOR.integers(0, 256, size=(12, 3, 2), dtype=np.uint8)
LABELS = GENERATOR.integers(0, 10, size=12, dtype=np.uint8)


def idx(values: np.ndarray) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
    return (0x800 + values.ndim).to_bytes(4, "big") + sizes + values.tobytes()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name, images, labels in (("train", IMAGES, LABELS), ("t10k", IMAGES[:4], LABELS[:4])):
        (tmp_path / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (tmp_path / f"{name}-labels-idx1-ubyte").write_bytes(idx(labels))
    return tmp_path


def config(place: Path, **changes: object) -> MnistConfig:
    return MnistConfig.model_validate({"kind": "mnist", "directory": str(place), "height": 3, "width": 2, **changes})


def test_images_are_divided_and_scaled(place: Path) -> None:
    splits = [config(place).vectors(split) for split in ("train", "valid", "test")]
    assert [len(one.labels) for one in splits] == [10, 2, 4]
    both = np.concatenate([one.values for one in splits[:2]])
    np.testing.assert_array_equal(np.round(both * 255), IMAGES.reshape(12, 6))
    assert splits[2].labels.tolist() == LABELS[:4].tolist()
    assert (config(place).shape, config(place).num_levels, config(place, pixels="sampled").num_levels) == (
        (1, 3, 2),
        256,
        2,
    )


@pytest.mark.parametrize("pixels", ["grey", "dynamic"])
def test_bytes_are_kept_and_give_what_their_numbers_give(place: Path, pixels: str) -> None:
    kept = config(place, pixels=pixels).vectors("train")
    numbers = Vectors(IMAGES[:10].reshape(10, 6).astype(np.float32) / 255.0, kept.labels, dynamic=pixels == "dynamic")
    assert (kept.stored.dtype, kept.values.dtype) == (np.uint8, np.float32)
    assert kept.fingerprint == numbers.fingerprint
    streams = [VectorStream(one, draws=Draws(micro_batches=1, rows=4, seed=1)) for one in (kept, numbers)]
    for draw in range(6):
        one, other = (stream.micro_batch(draw, 0).values for stream in streams)
        assert one.dtype == other.dtype
        assert bool((one == other).all())
    assert np.array_equal(kept.fixed().values, numbers.fixed().values)


def test_ones_are_drawn_once_or_anew_in_each_epoch(place: Path) -> None:
    """Each pixel's share of ones is its level; one draw is fixed by its seed, the other by run, epoch and image."""
    sampled = [config(place, pixels="sampled", pixel_seed=seed).vectors("train").values for seed in (0, 0, 1)]
    assert np.array_equal(sampled[0], sampled[1])
    assert not np.array_equal(sampled[0], sampled[2])
    many = np.mean([binary_draw(np.full((1, 4), 0.3), seed) for seed in range(4000)])
    assert many == pytest.approx(0.3, abs=4 * np.sqrt(0.21 / 16_000))
    dynamic = config(place, pixels="dynamic")
    stream = dynamic.stream(reads="vectors", length=None, micro_batches=2, rows=5, seed=3)
    by_image: dict[int, set[bytes]] = {}
    for draw in range(20):
        for number in (0, 1):
            batch = stream.micro_batch(draw, number)
            assert set(batch.values.unique().tolist()) <= {0.0, 1.0}
            for sample_id, row in zip(batch.sample_ids.tolist(), batch.values, strict=True):
                by_image.setdefault(sample_id % 10, set()).add(row.numpy().tobytes())
    assert min(map(len, by_image.values())) > 5
    again = dynamic.stream(reads="vectors", length=None, micro_batches=2, rows=5, seed=3)
    assert np.array_equal(again.micro_batch(7, 1).values, stream.micro_batch(7, 1).values)
    fixed = dynamic.vectors("valid").fixed()
    assert np.array_equal(fixed.values, dynamic.vectors("valid").fixed().values)
    assert not fixed.dynamic


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t10k-labels-idx1-ubyte", None, "has no t10k-labels-idx1-ubyte (or .gz), one of the four files of MNIST"),
        ("t10k-labels-idx1-ubyte", b"GIF89a", "begins with 47494638, where IDX files of labels begin with 00000801"),
        (
            "t10k-labels-idx1-ubyte",
            b"\0",
            "begins with 00, where IDX files of labels begin with 00000801; get it again",
        ),
        ("t10k-labels-idx1-ubyte", idx(LABELS)[:6], "is cut off after 6 bytes, within its sizes; get it again"),
        ("t10k-labels-idx1-ubyte", idx(IMAGES[:4, :1, :1]), "begins with 00000803, where IDX files of labels begin"),
        (
            "t10k-images-idx3-ubyte.gz",
            gzip.compress(idx(LABELS), mtime=0),
            "begins with 00000801, where IDX files of images",
        ),
        ("t10k-labels-idx1-ubyte", idx(LABELS)[:-3], "has 9 bytes of values, its sizes [12] need 12; get it again"),
        ("t10k-labels-idx1-ubyte", idx(LABELS), "4 images but 12 labels; get the files again"),
        ("t10k-labels-idx1-ubyte", idx(LABELS[:4] + 10), ", but data.classes is 10"),
        ("t10k-images-idx3-ubyte.gz", b"no gzip", "cannot be read"),
        (
            "t10k-images-idx3-ubyte.gz",
            gzip.compress(idx(IMAGES[:4, :2]), mtime=0),
            "are 2 x 2, but data.height is 3 and data.w",
        ),
    ],
)
def test_what_is_broken_is_told(place: Path, name: str, content: bytes | None, message: str) -> None:
    (place / name).unlink()
    if content is not None:
        (place / name).write_bytes(content)
    with pytest.raises(BadInput) as refused:
        config(place).vectors("test")
    assert message in str(refused.value)


def test_the_published_files() -> None:
    place = benchmark_data() / "mnist"
    if not place.is_dir():
        pytest.skip(f"{place} is missing: set SEGUE_BENCHMARK_DATA to the benchmark data")
    assert read_idx(place / "t10k-images-idx3-ubyte.gz", MAGIC).shape == (10_000, 28, 28)
    test = MnistConfig(kind="mnist", directory=str(place)).vectors("test")
    assert np.bincount(test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
