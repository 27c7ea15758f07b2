"""Kill -9 in the middle of a file that cannot be cut: its finished shards are kept."""

import gzip
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_pipeline.prepare import LocalExecutor, prepare
from data_pipeline.prepare.part_way import PartWay
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
