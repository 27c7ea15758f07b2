"""A directory is made by one driver at a time, with one set of settings."""

import json
from pathlib import Path

import pytest

from data_pipeline.config import Refused
from data_pipeline.prepare import LocalExecutor, Progress, prepare
from data_pipeline.text import TextConfig
from tests.data_pipeline.corpora import content_of, text_config, write_files
from tests.data_pipeline.prepare.test_scanning import Stopped, settled


def run(config: TextConfig) -> None:
    with LocalExecutor(1) as executor:
        prepare(config, executor=executor, report=lambda _: None)


def test_a_second_driver_is_refused_while_the_first_works(tmp_path: Path) -> None:
    config = text_config(tmp_path / "out", write_files(tmp_path / "corpus"))
    refused = 0

    def second(event: Progress) -> None:
        nonlocal refused
        if event.stage in ("scan", "encode"):
            with pytest.raises(Refused, match=r"another `launch\.py prepare` works on it now"):
                run(config)
            refused += 1

    with LocalExecutor(1) as executor:
        prepare(config, executor=executor, report=second)
    assert refused > 2
    run(config)  # of what is finished nothing is written


def test_settings_may_change_as_long_as_there_is_no_shard(tmp_path: Path) -> None:
    """What was found with the old ones is not taken for the new ones."""
    files = settled(write_files(tmp_path / "corpus"))
    lines = {"kind": "files", "directory": str(files), "train": ["*.txt"], "document": "line", "held_out": 0.2}

    def stop(event: Progress) -> None:
        if event.stage == "sample":
            raise Stopped

    with LocalExecutor(1) as executor, pytest.raises(Stopped):
        prepare(text_config(tmp_path / "out", files), executor=executor, report=stop)
    assert list((tmp_path / "out" / "work").glob("scan-*"))
    run(text_config(tmp_path / "out", files, corpus=lines))
    run(text_config(tmp_path / "fresh", files, corpus=lines))
    assert content_of(tmp_path / "out") == content_of(tmp_path / "fresh")


@pytest.mark.parametrize("left", ["{", "\xff", None])
def test_without_a_note_of_the_settings_nothing_found_is_trusted(left: str | None, tmp_path: Path) -> None:
    config = text_config(tmp_path / "out", write_files(tmp_path / "corpus"))
    work = tmp_path / "out" / "work"
    work.mkdir(parents=True)
    if left is not None:
        (work / "started.json").write_text(left, encoding="latin-1")
    (work / "scan-00000.json").write_text("of other settings")

    def stop(event: Progress) -> None:
        if event.stage == "scan":
            raise Stopped

    with LocalExecutor(1) as executor, pytest.raises(Stopped):
        prepare(config, executor=executor, report=stop)
    assert json.loads((work / "started.json").read_text()) == config.identity()
    assert not list(work.glob("scan-*")), "a file that has just been written is not kept either"
