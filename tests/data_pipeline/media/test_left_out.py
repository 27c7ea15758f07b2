"""What was left out of media can be found by name, whatever the workers and kills."""

import gc
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from data_pipeline.media.media_data import MediaData
from data_pipeline.media.media_pipeline import prepare_media
from data_pipeline.prepare import LocalExecutor
from data_pipeline.prepare.left_out import LEFT_OUT_FILE
from data_pipeline.sources.document import LeftOut
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
        record |= {"finished": False, "num_items": 0, "report": {}, "outside": []}
        path.write_text(json.dumps(record))
    (tmp_path / "out" / "media.json").unlink()
    (tmp_path / "out" / LEFT_OUT_FILE).unlink()
    prepared(data("out"))
    assert (tmp_path / "out" / LEFT_OUT_FILE).read_bytes() == expected


class Watching(LocalExecutor):
    """Counts, whenever a piece is asked for, the names that are still held of those before."""

    def __init__(self) -> None:
        super().__init__(1)
        self.held: list[int] = []

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
        for item in items:
            gc.collect()
            self.held.append(sum(isinstance(one, LeftOut) for one in gc.get_objects()))
            yield function(item)


def test_no_more_names_are_held_than_of_a_piece(tmp_path: Path) -> None:
    """And a record has each once."""
    bad = {f"{number:03d}.{'png' if number % 2 else 'txt'}": b"x" * 400 for number in range(100)}
    corpus = write(tmp_path / "corpus", {"good.png": png(IMAGES[0]), **bad})
    with Watching() as executor:
        data = config("images", tmp_path / "out", corpus, ["*"], shard_bytes=4000)
        prepare_media(data, executor=executor, report=lambda _: None)
    assert [one["id"] for one in left_out_of(tmp_path / "out")] != []
    assert len(executor.held) > 9
    assert max(executor.held) - executor.held[0] <= 10
    records = "".join(path.read_text() for path in (tmp_path / "out" / "work").glob("piece-*.json"))
    assert {name: records.count(f'"{name}"') for name in bad} == dict.fromkeys(bad, 1)
