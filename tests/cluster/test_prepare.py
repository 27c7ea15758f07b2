"""Preparing by Ray tasks and by processes of this machine ends in the same bytes."""

from pathlib import Path

import pytest
from rich.console import Console

from cluster.prepare import Pace, prepare
from data_pipeline.config import BadInput
from data_pipeline.prepare import Progress
from data_pipeline.text import TextConfig
from tests.data_pipeline.prepare.test_scanning import settled


def text(place: Path, name: str) -> TextConfig:
    corpus = {"kind": "files", "directory": str(place / "corpus"), "train": ["*.txt"], "document": "line"}
    return TextConfig.model_validate(
        {
            "kind": "text",
            "directory": str(place / name),
            "corpus": corpus,
            "tokenizer": {"kind": "byte"},
            "shard_bytes": 2000,
        }
    )


@pytest.mark.usefixtures("ray_of_two")
def test_ray_and_local_are_equal(tmp_path: Path, console: Console) -> None:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "a.txt").write_text("".join(f"document {n} says {n * n}\n" for n in range(1000)))
    made = [
        prepare(text(tmp_path, "by-ray"), executor="ray", workers=2, console=console),
        prepare(text(tmp_path, "local"), executor="local", workers=1, console=console),
    ]
    assert made[0].fingerprint() == made[1].fingerprint()
    assert len(made[0].splits["train"].shards) > 5


def test_the_pace_is_that_of_late() -> None:
    pace = Pace()
    assert pace.of(Progress("encode", 5, 10, 50, 5_000_000, 500, 1000), 10.0) == ""
    told = pace.of(Progress("encode", 7, 10, 70, 9_000_000, 700, 1000), 12.0)
    assert told == "10 documents/s, 2 MB/s, 0:00:03 left"
    assert pace.of(Progress("encode", 10, 10, 100, 12_000_000, 1000, 1000), 14.0) == "12.5 documents/s, 1.75 MB/s"


def test_bad_input_leaves_a_directory_that_was_there(tmp_path: Path, console: Console) -> None:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "a.txt").write_text("")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").write_text("keep")
    for name, left in (("new", False), ("mine", True)):
        with pytest.raises(BadInput, match="no document"):
            prepare(text(tmp_path, name), executor="local", workers=1, console=console)
        assert (tmp_path / name).exists() == left
    assert (tmp_path / "mine" / "notes").read_text() == "keep"


def test_what_was_found_before_bad_input_is_kept(tmp_path: Path, console: Console) -> None:
    (tmp_path / "corpus").mkdir()
    for number in range(3):
        (tmp_path / "corpus" / f"{number}.txt").write_bytes(b"some words\n" * 150 + b"\xff" * (number == 2))
    settled(tmp_path / "corpus")
    fields = text(tmp_path, "out").model_dump()
    fields |= {"tokenizer": {"kind": "bpe", "vocab_size": 300}}
    fields["corpus"]["invalid_utf8"] = "stop"
    with pytest.raises(BadInput, match=r"2\.txt:1650: not UTF-8"):
        prepare(TextConfig.model_validate(fields), executor="local", workers=1, console=console)
    assert len(list((tmp_path / "out" / "work").glob("scan-*"))) == 2
