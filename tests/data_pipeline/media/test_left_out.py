"""What was left out of media can be found by name, whatever the workers and kills."""

import json
from collections import Counter
from pathlib import Path

from data_pipeline.media.media_data import MediaData
from data_pipeline.prepare.left_out import LEFT_OUT_FILE
from tests.data_pipeline.media.media_files import config, png, prepared, random_images, tar_of, write

IMAGES = random_images(30, 4, 3)


def left_out_of(directory: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (directory / LEFT_OUT_FILE).read_text(encoding="utf-8").splitlines()]


def corpus_in(directory: Path) -> Path:
    files = {f"{number:02d}.png": png(IMAGES[number]) for number in range(20)}
    bad = {"03.png": b"no image", "07-held.png": b"", "09.txt": b"words", "11-held.png": png(IMAGES[0][:2])}
    packed = tar_of({"a.png": png(IMAGES[21]), "b/cut.png": png(IMAGES[22])[:-30]})
    return write(directory, {**files, **bad, "more.tar": packed})


def test_files_and_members_are_named(tmp_path: Path) -> None:
    corpus = corpus_in(tmp_path / "corpus")
    manifest = prepared(config("images", tmp_path / "out", corpus, ["*"], corpus_held_out=0.2))
    found = {one["id"]: one["reason"] for one in left_out_of(tmp_path / "out")}
    assert found == {
        "03.png": "broken",
        "07-held.png": "empty",
        "09.txt": "other_kind",
        "11-held.png": "wrong_size",
        "more.tar/b/cut.png": "cut_off",
    }
    assert manifest.report == Counter(found.values())


def test_workers_and_kills_make_no_difference(tmp_path: Path) -> None:
    """A piece that goes on within itself, too: from each of its tars."""
    corpus = corpus_in(tmp_path / "corpus")

    def data(out: str) -> MediaData:
        return config("images", tmp_path / out, corpus, ["*"], corpus_held_out=0.2, shard_bytes=5000)

    prepared(data("out"))
    expected = (tmp_path / "out" / LEFT_OUT_FILE).read_bytes()
    prepared(data("two"), workers=2)
    assert (tmp_path / "two" / LEFT_OUT_FILE).read_bytes() == expected
    for path in sorted((tmp_path / "out" / "work").glob("piece-*.json")):
        record = json.loads(path.read_bytes())
        record |= {"finished": False, "num_items": 0, "report": {}, "left_out": []}
        path.write_text(json.dumps(record))
    (tmp_path / "out" / "media.json").unlink()
    (tmp_path / "out" / LEFT_OUT_FILE).unlink()
    prepared(data("out"))
    assert (tmp_path / "out" / LEFT_OUT_FILE).read_bytes() == expected
