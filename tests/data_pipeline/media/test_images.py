"""Images: what is stored is what was given; what cannot be used is left out, and why is told."""

import gzip
import io
import pickle
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageOps

from data_pipeline.arrays import npy_array, npy_bytes
from data_pipeline.config import BadInput
from data_pipeline.media.images import ImageConverter, decode_png, encode_png
from data_pipeline.media.item import Caps, Entry
from data_pipeline.mnist import MnistConfig
from tests.data_pipeline.media.media_files import abouts, config, idx, png, prepared, random_images, write

GREY = random_images(6, 4, 3)
SIZES = st.integers(1, 9)


@settings(max_examples=60, deadline=None)
@given(
    st.one_of(
        st.tuples(SIZES, SIZES).flatmap(lambda shape: arrays(np.uint8, shape)),
        st.tuples(SIZES, SIZES, st.just(3)).flatmap(lambda shape: arrays(np.uint8, shape)),
    )
)
def test_png_is_exact(values: np.ndarray) -> None:
    back = decode_png(encode_png(values))
    np.testing.assert_array_equal(back, values[None] if values.ndim == 2 else values.transpose(2, 0, 1))


@settings(max_examples=60, deadline=None)
@given(arrays(st.sampled_from(["u1", "<i2", "<i4", "<f4"]), st.tuples(SIZES, SIZES)))
def test_npy_is_exact(values: np.ndarray) -> None:
    back = npy_array(npy_bytes(values))
    assert back.tobytes() == values.tobytes()
    assert (back.dtype, back.shape) == (values.dtype, values.shape)


def test_folders_are_labels_and_pixels_are_kept(tmp_path: Path) -> None:
    files = {f"{'cat' if number % 2 else 'dog'}/{number}.png": png(GREY[number]) for number in range(6)}
    corpus = write(tmp_path / "corpus", files)
    data = config(
        "images",
        tmp_path / "out",
        corpus,
        ["**/*.png"],
        corpus_labels={"kind": "folder"},
        corpus_classes=["cat", "dog"],
    )
    assert prepared(data).report == {}
    vectors = data.vectors("train")
    by_name = [(name, number) for name in ("cat", "dog") for number in range(6) if (number % 2 == 1) == (name == "cat")]
    assert vectors.labels.tolist() == [0, 0, 0, 1, 1, 1]
    for row, (_, number) in zip(vectors.values, by_name, strict=True):
        np.testing.assert_array_equal(np.round(row * 255), GREY[number].reshape(-1))
    about = abouts(tmp_path / "out")[0]
    assert about == {"class": 0, "height": 4, "label": "cat", "mode": "L", "source": "cat/1.png", "width": 3}
    assert (data.shape, data.num_classes, data.num_levels) == ((1, 4, 3), 2, 256)


@pytest.mark.parametrize("pixels", ["grey", "threshold", "sampled", "dynamic"])
def test_idx_files_give_what_the_kind_mnist_gives(pixels: str, tmp_path: Path) -> None:
    corpus, images = tmp_path / "corpus", random_images(12, 4, 3)
    labels = np.arange(12, dtype=np.uint8) % 10
    for name in ("train", "t10k"):
        write(corpus, {f"{name}-images-idx3-ubyte.gz": gzip.compress(idx(images))})
        write(corpus, {f"{name}-labels-idx1-ubyte": idx(labels)})
    write(corpus, {"train-labels-idx1-ubyte.gz": gzip.compress(idx(labels))})
    write(corpus, {"t10k-labels-idx1-ubyte.gz": gzip.compress(idx(labels))})
    data = config(
        "images",
        tmp_path / "out",
        corpus,
        ["*-images-idx3-ubyte.gz"],
        pixels=pixels,
        shard_bytes=8192,
        corpus_labels={"kind": "arrays"},
        corpus_classes=[str(digit) for digit in range(10)],
        corpus_valid=r"train-.*#00001\d",
        corpus_test="t10k-.*",
    )
    prepared(data)
    mnist = MnistConfig.model_validate(
        {"kind": "mnist", "directory": str(corpus), "height": 4, "width": 3, "pixels": pixels}
    )
    for split in ("train", "valid", "test"):
        ours, theirs = data.vectors(split), mnist.vectors(split)
        np.testing.assert_array_equal(ours.fixed().values, theirs.fixed().values)
        np.testing.assert_array_equal(ours.labels, theirs.labels)
        arguments = {"reads": "vectors", "length": None, "micro_batches": 1, "rows": 2, "seed": 3, "split": split}
        for draw in (0, 7):
            batch, other = (one.stream(**arguments).micro_batch(draw, 0) for one in (data, mnist))  # type: ignore[arg-type, attr-defined]
            assert bool((batch.values == other.values).all() and (batch.sample_ids == other.sample_ids).all())


def test_npz_arrays_are_read_by_name(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    colours = random_images(5, 4, 3, 3)
    np.savez_compressed(corpus / "a.npz", pictures=colours, what=np.array([3, 1, 3, 1, 1]))
    data = config(
        "images",
        tmp_path / "out",
        corpus,
        ["a.npz"],
        channels=3,
        corpus_array="pictures",
        corpus_labels={"kind": "arrays", "array": "what"},
        corpus_classes=["1", "3"],
    )
    prepared(data)
    vectors = data.vectors("train")
    assert vectors.labels.tolist() == [1, 0, 1, 0, 0]
    np.testing.assert_array_equal(np.round(vectors.values[2] * 255), colours[2].transpose(2, 0, 1).reshape(-1))


class Writes:
    """What unpickling it would do."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.path, "w")


@pytest.mark.parametrize("array", ["images", "labels"])
def test_nothing_is_unpickled(array: str, tmp_path: Path) -> None:
    corpus, sign = tmp_path / "corpus", tmp_path / "unpickled"
    corpus.mkdir()
    evil = np.array([Writes(str(sign))], dtype=object)
    arrays = {"images": random_images(1, 4, 3), "labels": np.zeros(1, np.uint8), array: evil}
    np.savez(corpus / "a.npz", **arrays)
    data = config("images", tmp_path / "out", corpus, ["a.npz"], corpus_labels={"kind": "arrays"}, corpus_classes=["0"])
    with pytest.raises(BadInput, match=rf"a\.npz: (the array )?{array}.*(unpickled|cannot be read)"):
        prepared(data)
    assert not sign.exists()
    with pytest.raises(ValueError, match="allow_pickle"):
        npy_array(_pickled(evil))
    assert not sign.exists()
    pickle.loads(pickle.dumps(Writes(str(sign)))).close()  # it would have
    assert sign.exists()


def _pickled(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def _bomb(width: int, height: int) -> bytes:
    """A PNG whose header says so many pixels, of a few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes((8, 0, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )


def _sixteen_bits() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.zeros((4, 3), np.uint16)).save(stream, format="PNG")
    return stream.getvalue()


BAD = {
    "broken": b"this is no PNG",
    "cut_off": png(random_images(1, 4, 3)[0])[:50],
    "empty": b"",
    "too_large": b"x" * 5000,
    "too_many_pixels": _bomb(60_000, 60_000),
    "wrong_channels": png(random_images(1, 4, 3, 3)[0]),
    "wrong_depth": _sixteen_bits(),
    "wrong_size": png(random_images(1, 5, 3)[0]),
}


@pytest.mark.parametrize("reason", BAD)
def test_bad_images_are_counted_or_end_it(reason: str, tmp_path: Path) -> None:
    corpus = write(tmp_path / "corpus", {"a.png": png(GREY[0]), "b.png": BAD[reason], "c.png": png(GREY[1])})
    caps = {"item_bytes": 4000, "pixels": 1000}
    data = config("images", tmp_path / "out", corpus, ["*.png"], corpus_caps=caps)
    assert prepared(data).report == {reason: 1}
    assert len(data.vectors("train").labels) == 2
    strict = config("images", tmp_path / "strict", corpus, ["*.png"], corpus_caps=caps, corpus_broken="stop")
    with pytest.raises(BadInput, match=rf"b\.png: {reason}: .*corpus\.broken"):
        prepared(strict)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.idx.gz", gzip.compress(idx(np.zeros((2000, 100, 100), np.uint8))), "expands_too_far"),
        ("a.idx.gz", gzip.compress(idx(GREY))[:40], "cut_off"),
        ("a.idx", idx(GREY)[:-5], "cut_off"),
        ("a.idx", b"\0\0\x0d\3" + bytes(12), "broken"),
        ("a.idx", idx(GREY[0]), "wrong_size"),
        ("a.idx", idx(np.zeros((1, 40, 40), np.uint8)), "too_many_pixels"),
        ("a.npz", b"PK\3\4 no zip", "broken"),
    ],
)
def test_bad_arrays_are_counted(name: str, content: bytes, reason: str, tmp_path: Path) -> None:
    corpus = write(tmp_path / "corpus", {name: content, "good.png": png(GREY[0])})
    data = config("images", tmp_path / "out", corpus, ["*"], corpus_caps={"pixels": 1000, "expansion": 5})
    if reason == "expands_too_far":
        data = config("images", tmp_path / "out", corpus, ["*"], corpus_caps={"pixels": 100_000, "expansion": 5})
    assert prepared(data).report == {reason: 1}


def test_colours_and_sizes_are_made_equal_where_that_is_asked(tmp_path: Path) -> None:
    corpus = write(
        tmp_path / "corpus",
        {"a.png": png(np.full((8, 6, 3), (255, 0, 0), np.uint8)), "b.jpg": png(np.full((9, 20), 7, np.uint8), "JPEG")},
    )
    data = config("images", tmp_path / "out", corpus, ["*"], recolour=True, fit="crop")
    assert prepared(data).report == {}
    values = np.round(data.vectors("train").values * 255)
    assert set(values[0]) == {76}, "0.299 of 255"
    assert np.abs(values[1] - 7).max() <= 1


def test_several_pictures_of_a_camera_in_one_file_are_turned_too() -> None:
    """The first of them, as of each file that moves."""
    exif = Image.Exif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    first, second = (Image.fromarray(one) for one in random_images(2, 8, 6, 3))
    first.save(stream, format="MPO", save_all=True, append_images=[second], exif=exif.tobytes())
    expected = ImageOps.exif_transpose(Image.open(stream))
    converter = ImageConverter(height=6, width=8, channels=3)
    stored = converter.convert(Entry("a.jpg", stream.getvalue()), Caps())
    assert (decode_png(stored.payload) == np.asarray(expected).transpose(2, 0, 1)).all()


@pytest.mark.parametrize("orientation", [*range(1, 9), 0, 99, b"broken"])
def test_a_jpeg_is_turned_upright_as_its_exif_says(orientation: int | bytes) -> None:
    exif = Image.Exif()
    if isinstance(orientation, int):
        exif[0x0112] = orientation
    stream = io.BytesIO()
    held = Image.fromarray(random_images(1, 8, 6, 3)[0])
    held.save(stream, format="JPEG", exif=exif.tobytes() if isinstance(orientation, int) else b"Exif\0\0nothing")
    expected = Image.open(stream, formats=("JPEG",))
    if isinstance(orientation, int):
        expected = ImageOps.exif_transpose(expected)
    assert expected.size == ((8, 6) if orientation in (5, 6, 7, 8) else (6, 8))
    converter = ImageConverter(height=expected.height, width=expected.width, channels=3)
    stored = converter.convert(Entry("a.jpg", stream.getvalue()), Caps())
    assert (decode_png(stored.payload) == np.asarray(expected).transpose(2, 0, 1)).all()
    assert stored.facts == {"height": 8, "width": 6, "mode": "RGB"}
