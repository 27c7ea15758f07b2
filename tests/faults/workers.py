"""What the tests of workers share: a small run, its events, and a watcher that acts once."""

import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import psutil
import pytest

from cluster.observer import WorkerStatus
from pretrain import checkpoint, config
from pretrain.experiment import Experiment
from pretrain.metrics_log import read_rows

STEPS = 60
ROOT = Path(__file__).parents[2]


def experiment(*overrides: str) -> Experiment:
    """Its steps are slow enough that a supervisor, which looks three times a second, sees it at work.

    Nobody is a straggler in it, whatever else the machine does.
    """
    slow = ("batch.rows=16", "model.num_layers=12", "supervision.straggler_factor=1000")
    fixed = (f"steps={STEPS}", "checkpoint.every=25", "evaluate.every=null", *slow)
    return config.load(Experiment, config.recipe_path("tiny_transformer_xl"), (*fixed, *overrides))


def events(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]


def kinds(run: Path) -> list[str]:
    return [event["event"] for event in events(run)]


def last(run: Path) -> checkpoint.CheckpointReader:
    found = checkpoint.newest_good(run, log=lambda line: pytest.fail(line))
    assert found is not None
    return found


def losses(run: Path) -> list[tuple[int, float]]:
    return [(row["step"], row["loss"]) for row in read_rows(run)]


def assert_same_bits(run: Path, other: Path) -> None:
    """Of the last checkpoint's tensors and of every step's loss."""
    compared = checkpoint.compare(last(run), last(other))
    assert compared.differences == []
    assert len(compared.tensors) > 50
    assert losses(run) == losses(other)


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Return once it holds; fails where it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} has not come in {seconds:.0f} s"
        time.sleep(0.05)


def has_reached(run: Path, step: int) -> bool:
    """Whether the run has logged a step so far or further."""
    return (run / "metrics.jsonl").exists() and any(row["step"] >= step for row in read_rows(run))


def assert_gone(pids: Iterable[int], seconds: float = 30.0) -> None:
    """All have ended or end soon; the kernel and their parent may need a moment to say so."""
    left = []
    for pid in pids:
        try:
            left.append(psutil.Process(pid))
        except psutil.NoSuchProcess:
            continue
    _, alive = psutil.wait_procs(left, timeout=seconds)
    assert [p.pid for p in alive if p.status() != psutil.STATUS_ZOMBIE] == []


class Once:
    """Does something to the statuses the first time that worker 1 has done so many steps."""

    def __init__(self, step: int, act: Callable[[list[WorkerStatus]], None]) -> None:
        self.step, self.act = step, act
        self.pids: set[int] = set()
        self.acted_at: int | None = None

    def __call__(self, statuses: list[WorkerStatus]) -> None:
        assert [status.rank for status in statuses] == [0, 1]
        self.pids |= {status.pid for status in statuses}
        if self.acted_at is None and statuses[1].step >= self.step:
            self.acted_at = statuses[1].step
            self.act(statuses)
