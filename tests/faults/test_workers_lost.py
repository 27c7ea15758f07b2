"""Row 1: workers die, alone or while the others wait for them; nothing that the run computes shows it."""

import os
import signal
from datetime import datetime
from pathlib import Path

import pytest
from rich.console import Console

from cluster.observer import WorkerStatus
from cluster.train import train
from tests.faults.injector import Fault, Faults
from tests.faults.workers import STEPS, Once, assert_gone, assert_same_bits, events, experiment, kinds

pytestmark = pytest.mark.usefixtures("ray_of_two")
ABORT_SECONDS = 30.0


def test_a_killed_worker_changes_no_bit(tmp_path: Path, console: Console, undisturbed: Path) -> None:
    def kill_worker_1(statuses: list[WorkerStatus]) -> None:
        os.kill(statuses[1].pid, signal.SIGKILL)

    run = tmp_path / "run"
    watcher = Once(30, kill_worker_1)
    assert train(experiment(), run, workers=2, on_status=watcher, console=console) == STEPS
    assert watcher.acted_at is not None
    assert len(watcher.pids) == 4, "both workers were started anew"
    assert_gone(watcher.pids)
    assert kinds(run) == ["started", "lost", "resumed", "finished"]
    lost, resumed = events(run)[1:3]
    assert lost["workers"][0].startswith("worker 1 (process ")
    assert (lost["losses"][0]["worker"], lost["asked_workers"], lost["next_workers"]) == (1, 2, 2)
    assert resumed["step"] in (25, 50)
    assert_same_bits(run, undisturbed)


@pytest.mark.slow
def test_in_a_collective_in_a_save_and_in_an_evaluation_the_others_are_ended_soon(
    tmp_path: Path, console: Console, undisturbed: Path
) -> None:
    """Worker 0 waits for gradients, then worker 1 waits for the save of the leader, then all are evaluating."""
    deaths = [("update", 1, 10), ("save", 0, 25), ("evaluate", 1, 40)]
    faults = [Fault("kill", rank, moment, step, tmp_path / moment) for moment, rank, step in deaths]
    run = tmp_path / "run"
    settings = experiment("evaluate.every=40", "supervision.max_failures=5")
    assert train(settings, run, workers=2, console=console, injector=Faults(faults)) == STEPS
    lost = [event for event in events(run) if event["event"] == "lost"]
    assert [event["losses"][0]["worker"] for event in lost] == [1, 0, 1]
    for event, fault in zip(lost, faults, strict=True):
        died = float(fault.marker.read_text().split()[0])
        assert datetime.strptime(event["time"], "%Y-%m-%dT%H:%M:%S%z").timestamp() - died < ABORT_SECONDS
    assert_same_bits(run, undisturbed)
