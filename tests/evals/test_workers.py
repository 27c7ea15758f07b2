"""Workers of an evaluation: all compute with the driver's checkpoint, each has a place of its own, one may die."""

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from cluster.inspection import prune
from data_pipeline.config import BadInput, GaveUp
from evals import evaluate_tasks as module
from evals.evaluate_tasks import TaskResult, evaluate_tasks
from evals.results_file import ResultsFile
from evals.targets import Target
from evals.tasks.data import DataSource
from pretrain.group import Group
from tests.evals.runs import prepared_text, run_of_two_checkpoints

RECIPE = "tiny_gpt"
TEXT = 120 * " memory carries on \n segue é segue on \n"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A run with checkpoints of steps 1 and 2, and a text."""
    run_of_two_checkpoints(tmp_path / RECIPE, RECIPE, prepared_text(tmp_path))
    (tmp_path / "data" / "ptb").mkdir(parents=True)
    (tmp_path / "data" / "ptb" / "ptb.test.txt").write_text(TEXT, encoding="utf-8")
    return tmp_path


@dataclass(frozen=True)
class TrainsOn(DataSource):
    """The run saves a checkpoint while the tasks are read."""

    newer: Path = Path()
    kept: Path = Path()

    def read_bytes(self, task: str, names: Sequence[str], *rest: Any, **more: Any) -> tuple[str, bytes, str]:
        if self.kept.exists():
            self.kept.rename(self.newer)
        return super().read_bytes(task, names, *rest, **more)


def results(target: Target, source: DataSource, workers: int) -> list[TaskResult]:
    with closing(ResultsFile(None)) as kept:
        return list(evaluate_tasks(target, ["ptb/tokenized"], source, kept, rows=2, workers=workers))


def test_workers_open_the_checkpoint_that_the_driver_opened(place: Path) -> None:
    newer, kept = place / RECIPE / "checkpoints" / "step-000000002", place / "not yet there"
    source = TrainsOn(place / "data", newer, kept)
    one, two = (results(Target(str(place / RECIPE), step), source, 1)[0].metrics for step in (1, 2))
    newer.rename(kept)
    found = results(Target(str(place / RECIPE)), source, 2)[0].metrics
    assert newer.exists()
    assert [metric.value for metric in found] == [metric.value for metric in one] != [metric.value for metric in two]
    assert found[0].protocol["model"]["checkpoint"]["step"] == 1


def test_a_checkpoint_is_held_until_the_workers_have_it(place: Path) -> None:
    """Retention may want it gone while the tasks are read."""

    class Prunes(DataSource):
        def read_bytes(self, task: str, names: Sequence[str], *rest: Any, **more: Any) -> tuple[str, bytes, str]:
            removed.extend(prune(place / RECIPE, 1, dry_run=False))
            return super().read_bytes(task, names, *rest, **more)

    removed: list[str] = []
    old = Target(str(place / RECIPE), 1)
    (found,) = results(old, Prunes(place / "data"), 2)
    assert (place / RECIPE / "checkpoints" / "step-000000001").is_dir(), removed
    assert found.metrics
    assert any("removed" in line for line in prune(place / RECIPE, 1, dry_run=False))
    assert not (place / RECIPE / "checkpoints" / "step-000000001").exists(), "and no longer"


def test_a_checkpoint_is_held_from_before_it_is_read(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Retention may want it gone as soon as the driver has opened it, before there are workers."""
    right = Target.open

    def open_and_prune(self: Target) -> Any:
        found = right(self)
        list(prune(place / RECIPE, 1, dry_run=False))
        return found

    monkeypatch.setattr(Target, "open", open_and_prune)
    (found,) = results(Target(str(place / RECIPE), 1), DataSource(place / "data"), 2)
    assert found.metrics[0].protocol["model"]["checkpoint"]["step"] == 1


def test_why_a_worker_cannot_open_the_target_is_told(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = module._Workers
    monkeypatch.setattr(module, "_Workers", lambda _, count: right(Target(str(place / "gone")), count))
    with pytest.raises(BadInput, match=r"gone: is no run"):
        results(Target(str(place / RECIPE)), DataSource(place / "data"), 2)


def test_each_worker_takes_an_accelerator_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Group] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr("evals.targets.choose_device", lambda wanted, group: asked.append(group))
    monkeypatch.setattr(Target, "open", lambda self: (self._device(), None))
    monkeypatch.setattr(module, "one_thread", lambda: None)
    opened = multiprocessing.get_context("spawn").Value("i", 0)
    for _ in range(4):
        module._open_target(Target("any"), opened)
    assert [group.local_rank for group in asked] == [0, 1, 2, 0]


DRIVER = """
import sys, time
from pathlib import Path
from evals.evaluate_tasks import evaluate_tasks
from evals.results_file import ResultsFile
from evals.targets import Target
from evals.tasks.data import DataSource

def stay(task, done, total):
    print(done, flush=True)
    time.sleep(600 if done else 0)

if __name__ == "__main__":
    run, data = sys.argv[1:]
    target, source = Target(run), DataSource(Path(data))
    list(evaluate_tasks(target, ["ptb/tokenized"], source, ResultsFile(None), rows=2, workers=2, progress=stay))
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_their_driver(place: Path, how: signal.Signals) -> None:
    (place / "driver.py").write_text(DRIVER)
    command = [sys.executable, str(place / "driver.py"), str(place / RECIPE), str(place / "data")]
    root = Path(module.__file__).parents[1]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(root)}
    ) as driver:
        assert driver.stdout is not None
        assert [driver.stdout.readline() for _ in range(2)] == ["0\n", "1\n"], "it has scored something"
        workers = [one for one in psutil.Process(driver.pid).children() if "spawn_main" in " ".join(one.cmdline())]
        assert len(workers) == 2
        driver.send_signal(how)
        _, alive = psutil.wait_procs(workers, timeout=30)
    for worker in alive:
        worker.kill()
    assert not alive


def test_a_worker_that_dies_is_told_and_what_was_kept_goes_on(place: Path, tmp_path: Path) -> None:
    whole, died = tmp_path / "whole.jsonl", tmp_path / "died.jsonl"
    many = 6 * TEXT  # more batches than workers have waiting for them, which may all be done when the first is told
    (place / "data" / "ptb" / "ptb.test.txt").write_text(many, encoding="utf-8")
    target, source = Target(str(place / RECIPE)), DataSource(place / "data")

    def kill_one(task: str, done: int, total: int) -> None:
        for child in psutil.Process().children() if done == 1 else []:
            with suppress(psutil.ZombieProcess, psutil.NoSuchProcess):  # the other is ended as soon as one has died
                if any("spawn_main" in part for part in child.cmdline()):
                    child.kill()
                    child.wait()

    def run(out: Path, progress: module.Progress) -> None:
        with closing(ResultsFile(out)) as kept:
            list(evaluate_tasks(target, ["ptb/tokenized"], source, kept, rows=2, workers=2, progress=progress))

    run(whole, module.silent)
    with pytest.raises(GaveUp, match=r"a worker of the evaluation died.* what --out has stays"):
        run(died, kill_one)
    assert 0 < died.read_bytes().count(b"\n") < whole.read_bytes().count(b"\n")
    run(died, module.silent)
    assert died.read_bytes() == whole.read_bytes()
