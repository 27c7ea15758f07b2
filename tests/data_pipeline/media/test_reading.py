"""Reading prepared media: at random by the index; what is damaged is told, by size at once and by hash when asked."""

from pathlib import Path

import numpy as np
import pytest

from data_pipeline.batch import IGNORED
from data_pipeline.config import BadInput, Corrupt
from data_pipeline.media.media_data import MediaData
from data_pipeline.verification import verify
from tests.data_pipeline.corpora import content_of
from tests.data_pipeline.media.media_files import config, png, prepared, random_images, tars_of, write

IMAGES = random_images(20, 4, 3)


@pytest.fixture
def data(tmp_path: Path) -> MediaData:
    corpus = write(tmp_path / "corpus", {f"{number:02d}.png": png(values) for number, values in enumerate(IMAGES)})
    made = config("images", tmp_path / "out", corpus, ["*.png"], shard_bytes=8 * 2048)
    assert len(prepared(made).splits["train"].shards) > 2
    return made


def test_any_item_is_found_by_its_number(data: MediaData) -> None:
    shards = data.shards()
    members = [content for tar in tars_of(Path(data.directory)).values() for content in tar.values()]
    for item in (19, 0, 7, 13):
        assert shards.payload(item) == members[2 * item]
        assert shards.about(item) == members[2 * item + 1]
    assert shards.payload(3, -5) == members[6][-5:]
    assert (shards.num_items, set(shards.labels)) == (20, {-1})


def test_rows_are_those_that_are_asked_for(data: MediaData) -> None:
    vectors = data.vectors("train")
    for chosen in (np.array([5, 0, 5]), slice(3, 9), slice(30, 40)):
        expected = IMAGES.reshape(20, -1)[chosen].astype(np.float32) / np.float32(255)
        np.testing.assert_array_equal(vectors.rows(chosen), expected)
    assert set(vectors.labels) == {IGNORED}


def test_streams_of_equal_seeds_are_equal_and_know_their_data(data: MediaData, tmp_path: Path) -> None:
    def stream(one: MediaData, seed: int):  # type: ignore[no-untyped-def]
        return one.stream(reads="vectors", length=None, micro_batches=2, rows=3, seed=seed)

    again, other = (stream(data, seed) for seed in (1, 2))
    assert bool((again.micro_batch(9, 1).values == stream(data, 1).micro_batch(9, 1).values).all())
    assert bool((again.micro_batch(9, 1).values != other.micro_batch(9, 1).values).any())
    seen = np.concatenate([again.micro_batch(draw, number).sample_ids for draw in range(3) for number in range(2)])
    assert len(set(seen)) == 18
    changed = write(tmp_path / "changed", {f"{n:02d}.png": png(v ^ (n == 3)) for n, v in enumerate(IMAGES)})
    changed_data = config("images", tmp_path / "out2", changed, ["*.png"], shard_bytes=8 * 2048)
    prepared(changed_data)
    assert changed_data.fingerprint() != data.fingerprint()
    assert again.fingerprint() != stream(changed_data, 1).fingerprint()


def test_sizes_are_looked_at_when_it_is_opened(data: MediaData) -> None:
    path = Path(data.directory, "shards", "train-00000-001.tar")
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(Corrupt, match=r"train-00000-001\.tar: has \d+ bytes, but \d+ were written"):
        data.vectors("train")
    path.unlink()
    with pytest.raises(Corrupt, match=r"train-00000-001\.tar: is missing"):
        data.vectors("train")


def test_changed_bytes_are_found_by_their_hashes_and_can_be_made_again(data: MediaData) -> None:
    directory = Path(data.directory)
    whole = content_of(directory)
    assert [one.problem for one in verify(directory)] == [None] * sum(1 for _ in (directory / "shards").iterdir())
    for name in ("train-00000-001.tar", "train-00000-000.index.npy"):
        path = Path(data.directory, "shards", name)
        content = bytearray(path.read_bytes())
        content[700 if name.endswith(".tar") else -1] ^= 1
        path.write_bytes(content)
    bad = [one for one in verify(directory) if one.problem is not None]
    assert [one.path.name for one in bad] == ["train-00000-000.index.npy", "train-00000-001.tar"]
    assert all("its content is not what was written" in str(one.problem) for one in bad)
    for name in ("train-00000-001.tar", "train-00000-000.index.npy"):
        Path(data.directory, "shards", name).unlink()
    prepared(data)
    assert content_of(Path(data.directory)) == whole


def test_an_item_that_cannot_be_decoded_is_named(data: MediaData) -> None:
    path = Path(data.directory, "shards", "train-00000-001.tar")
    content = bytearray(path.read_bytes())
    place = content.index(b"\x89PNG", 2048)
    content[place : place + 20] = bytes(20)
    path.write_bytes(content)
    with pytest.raises(Corrupt, match=r"train-00000-001\.tar: item \d, of \S+, cannot be decoded") as damaged:
        _ = data.vectors("train").values
    assert f"`launch.py data verify {data.directory} --set-aside`, then `launch.py prepare`" in str(damaged.value)
    assert "BytesIO" not in str(damaged.value)


def test_what_is_not_there_is_told(data: MediaData, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="split 'valid'"):
        data.vectors("valid")
    with pytest.raises(BadInput, match=r"holds no prepared media; run `launch\.py prepare` first"):
        data.model_copy(update={"directory": str(tmp_path / "nothing")}).vectors("train")
    Path(data.directory, "media.json").write_text("{}")
    with pytest.raises(Corrupt, match=r"not a manifest \(format_version: Field required, and 5 more\); restore it"):
        data.vectors("train")
