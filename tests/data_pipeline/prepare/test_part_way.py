"""Kill -9 in the middle of a file that cannot be cut: its finished shards are kept."""

import gzip
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from data_pipeline.prepare import LocalExecutor, prepare
from data_pipeline.prepare.part_way import Changed, PartWay, key_of
from data_pipeline.prepare.pieces import EncodeTask
from data_pipeline.prepare.scanning import Scanner, ScanTask
from data_pipeline.sources.document import Document, Piece
from data_pipeline.sources.whole_documents import SplitDocument
from data_pipeline.stored_files import SHARD_FOLDER
from data_pipeline.text import TextConfig
from tests.data_pipeline.corpora import content_of, text_config

ROOT = Path(__file__).parents[3]

SCRIPT = """
import pathlib, sys
from data_pipeline.prepare import LocalExecutor, prepare
from tests.data_pipeline.prepare.test_part_way import config_of
with LocalExecutor(1) as executor:
    prepare(config_of(*map(pathlib.Path, sys.argv[1:])), executor=executor, report=lambda _: None)
"""


def config_of(out: Path, corpus: Path) -> TextConfig:
    fields = {"kind": "files", "directory": str(corpus), "train": ["*.gz"], "document": "line"}
    return text_config(out, corpus, corpus=fields, tokenizer={"kind": "byte"}, shard_bytes=1 << 20)


def task_of(directory: Path) -> ScanTask:
    return ScanTask(config_of(directory, directory).corpus, Piece("train", ()), 0, directory)


def test_what_another_tokenizer_or_shard_size_left_is_not_gone_on_with(tmp_path: Path) -> None:
    task = task_of(tmp_path)
    PartWay(key="before", num_documents=3, content="x").write(task)
    assert PartWay.read(task, "before").num_documents == 3
    assert PartWay.read(task, "now") == PartWay(key="now")
    made = EncodeTask(task, None, "a" * 64, 4000)
    keys = {one.key("content") for one in (made, replace(made, tokenizer_hash="b" * 64), replace(made, shard_bytes=1))}
    assert len(keys | {made.key("other content")}) == 4
    assert len({key_of(task, "a", 1), key_of(task, "b", 1), key_of(task, "a", 2)}) == 3


@pytest.mark.parametrize("missing", [0, 1])
def test_a_file_with_fewer_documents_than_before_has_changed(missing: int, tmp_path: Path) -> None:
    documents: list[SplitDocument] = [("train", Document(str(number), "text", 4)) for number in range(3)]
    before = Scanner(task_of(tmp_path))
    for split, document in documents:
        before.add(split, document)
    begun = PartWay(num_documents=3, content=before.content)
    found = begun.checked(iter(documents[missing:]), Scanner(task_of(tmp_path)))
    if missing:
        with pytest.raises(Changed):
            list(found)
    else:
        assert list(found) == [(False, one) for one in documents]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("corpus")
    lines = (f"line {number} of {number * number}; " * 100 for number in range(10_000))
    (directory / "a.txt.gz").write_bytes(gzip.compress("\n".join(lines).encode(), 1))
    return directory


@pytest.fixture(scope="module")
def whole(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    directory = tmp_path_factory.mktemp("whole") / "out"
    with LocalExecutor(1) as executor:
        prepare(config_of(directory, corpus), executor=executor, report=lambda _: None)
    assert len(list((directory / "work").glob("piece-*"))) == 1
    return content_of(directory)


@pytest.mark.parametrize("damage", ["none", "other text", "a shard"])
def test_finished_shards_are_kept_if_they_are_of_the_same_text(
    damage: str, corpus: Path, whole: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    record = out / "work" / "part-00000.json"
    with subprocess.Popen([sys.executable, "-c", SCRIPT, str(out), str(corpus)], cwd=ROOT) as process:
        while not record.exists() or len(PartWay.model_validate_json(record.read_bytes()).shards["train"]) < 3:
            assert process.poll() is None, "ended before three shards were there"
            time.sleep(0.002)
        process.kill()
    begun = PartWay.model_validate_json(record.read_bytes())
    paths = [out / SHARD_FOLDER / f"{one.name}.tokens.npy" for one in begun.records()]
    if damage == "other text":
        record.write_text(begun.model_copy(update={"content": "0" * 64}).model_dump_json())
    if damage == "a shard":
        paths[0].write_bytes(paths[0].read_bytes()[:-1] + b"x")
    before = [path.stat().st_mtime_ns for path in paths]
    time.sleep(0.01)
    with LocalExecutor(1) as executor:
        prepare(config_of(out, corpus), executor=executor, report=lambda _: None)
    assert content_of(out) == whole
    kept = [path.stat().st_mtime_ns for path in paths] == before
    assert kept == (damage == "none")
