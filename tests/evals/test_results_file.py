"""Results on a disk that fills up, and values that JSON has not."""

import errno
import json
import os
import resource
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from cluster.huggingface_export import export_huggingface
from cluster.sampling import keep_tokenizer
from data_pipeline.config import BadInput
from data_pipeline.prepare import LocalExecutor, prepare
from data_pipeline.text import TextConfig
from evals.results_file import ResultsFile
from evals.tasks.task import Record
from pretrain import config
from pretrain.checkpoint import NotSaved
from pretrain.experiment import Experiment
from tests.evals.runs import finished_run, prepared_text

PROTOCOL = {"rows": 4}
RECORDS: list[Record] = [{"example": f"{number:03d}", "nats": [0.1 * number] * 10} for number in range(50)]


@contextmanager
def files_of_at_most(num_bytes: int) -> Iterator[None]:
    """The operating system writes up to there and refuses what is beyond, as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def write(path: Path) -> None:
    """What is not there yet."""
    with closing(ResultsFile(path)) as results:
        kept = results.begin("lambada", PROTOCOL)
        for record in RECORDS[len(kept) :]:
            results.add("lambada", record)


@pytest.mark.parametrize("room", [10, 2000])
def test_a_full_disk_is_said_and_the_same_command_goes_on(tmp_path: Path, room: int) -> None:
    whole, path = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    write(whole)
    with (
        files_of_at_most(room),
        pytest.raises(NotSaved, match=rf"--out {path}: cannot be written \(File too large\); what is there stays"),
    ):
        write(path)
    assert whole.read_bytes().startswith(path.read_bytes())
    assert path.stat().st_size == room < whole.stat().st_size, "the limit was not met within a line"
    write(path)
    assert path.read_bytes() == whole.read_bytes()


def test_after_a_failure_nothing_more_is_written(tmp_path: Path) -> None:
    results = ResultsFile(tmp_path / "out.jsonl")
    kept = results.begin("lambada", PROTOCOL)
    with files_of_at_most(100), pytest.raises(NotSaved):
        results.add("lambada", RECORDS[0])
    assert kept == [], "what is not on disk counts as not done"
    with pytest.raises(ValueError, match="closed file"):
        results.add("lambada", RECORDS[1])
    results.close()
    ResultsFile(tmp_path / "out.jsonl").close()  # its lock is gone


def test_a_disk_that_fails_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = ResultsFile(tmp_path / "out.jsonl")
    results.begin("lambada", PROTOCOL)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NotSaved, match="No space left on device"):
        results.close()
    results.close()
    ResultsFile(tmp_path / "out.jsonl")  # its lock is gone


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("kept", [True, False])
def test_no_value_but_numbers(tmp_path: Path, value: float, *, kept: bool) -> None:
    path = tmp_path / "out.jsonl" if kept else None
    with closing(ResultsFile(path)) as results:
        results.begin("lambada", PROTOCOL)
        results.add("lambada", RECORDS[0])
        with pytest.raises(BadInput, match="lambada, example 7: has nan or infinity among its values"):
            results.add("lambada", {"example": "7", "nats": [1.0, value]})
        with pytest.raises(BadInput, match="ptb: has nan or infinity"):
            results.begin("ptb", {"scale": value})
        results.add("lambada", RECORDS[1])
    if path is not None:
        found = [json.loads(line) for line in path.read_text().splitlines()]
        assert [line.get("example") for line in found] == [None, "000", "001"]


@pytest.mark.parametrize("place", ["/dev/full", "."])
def test_places_that_hold_no_results(place: str) -> None:
    with pytest.raises(BadInput, match="is no regular file"):
        ResultsFile(Path(place))


def test_an_export_without_room(tmp_path: Path) -> None:
    """Weights are written by a library whose errors are of a kind of its own."""
    text = prepared_text(tmp_path).replace("{kind: byte}", "{kind: bpe, vocab_size: 270}").replace("/shards", "/bpe")
    data = config.load(Experiment, config.recipe_path("tiny_gpt"), [text]).data
    assert isinstance(data, TextConfig)
    prepare(data, executor=LocalExecutor(1), report=lambda progress: None)
    experiment = finished_run(tmp_path / "run", "tiny_gpt", text, "model.vocab_size=270", steps=1)
    keep_tokenizer(experiment, tmp_path / "run")
    (tmp_path / "exports").mkdir()
    for room in (1000, 100_000):
        with (
            files_of_at_most(room),
            pytest.raises(
                NotSaved, match=r"model cannot be written \(.*File too large.*\); nothing of it is left; free "
            ),
        ):
            export_huggingface(tmp_path / "run", tmp_path / "exports" / "model", None, "float32")
        assert list((tmp_path / "exports").iterdir()) == []
    export_huggingface(tmp_path / "run", tmp_path / "exports" / "model", None, "float32")
