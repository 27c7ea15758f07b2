"""What protects workers where the driver cannot: their own limits, and leaving where Ray can end nobody."""

import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from ray.util.placement_group import remove_placement_group
from rich.console import Console

from cluster.job import Job
from cluster.train import train
from cluster.worker_group import WorkerGroup
from pretrain import run_directory
from pretrain.trainer import Trainer
from tests.faults.workers import assert_gone, experiment

pytestmark = pytest.mark.usefixtures("ray_of_two")


@dataclass(frozen=True)
class WriteLimits:
    """Of each worker, as it trains: seconds of a collective, and of its own watchdog, if that is awake."""

    directory: Path

    def __call__(self, moment: str, trainer: Trainer) -> None:
        if moment == "forward_backward":
            collectives = dist.distributed_c10d._get_default_group()._get_backend(torch.device("cpu")).options
            watchdogs = [t._target.__self__ for t in threading.enumerate() if t.name == "watchdog"]  # type: ignore[attr-defined]
            limits = [collectives._timeout.total_seconds(), *(watchdog.limit for watchdog in watchdogs)]
            (self.directory / f"{trainer.engine.group.rank}.json").write_text(json.dumps(limits))


@pytest.mark.parametrize(("hang_minutes", "slowest"), [(40, 2400), (0.5, 120)])
def test_who_is_not_watched_gives_up_later_than_the_driver_would(
    tmp_path: Path, console: Console, hang_minutes: float, slowest: float
) -> None:
    """First the driver, which knows who hangs (after a hang or a start); then a collective; then the worker itself."""
    settings = experiment("steps=1", f"supervision.hang_minutes={hang_minutes}", "checkpoint.timeout_minutes=0.4")
    train(settings, tmp_path / "run", workers=2, console=console, injector=WriteLimits(tmp_path))
    for rank in range(2):
        collective, watchdog = json.loads((tmp_path / f"{rank}.json").read_text())
        assert slowest < collective < watchdog <= slowest + 120


class LostHead:
    """Of a Ray that can be asked nothing."""

    def answers(self) -> bool:
        return False

    def check(self) -> None:
        pass

    def wait(self) -> None:
        pass


@contextmanager
def group_without_head(directory: Path) -> Iterator[WorkerGroup]:
    run_directory.create(directory, experiment())
    job = Job(directory, Path.cwd())
    group = WorkerGroup(job, 2, resources={"CPU": 1}, hang_seconds=60.0, head=LostHead())  # type: ignore[arg-type]
    try:
        yield group
    finally:
        remove_placement_group(group.placement)


def test_workers_of_other_machines_leave_where_the_head_is_gone(tmp_path: Path) -> None:
    """There the driver cannot kill them itself."""
    with group_without_head(tmp_path / "run") as group:
        pids = [status.pid for status in group.statuses()]
        for member in group.members:
            member.process = None
        group.end()
        assert_gone(pids)


def test_a_stopped_worker_of_this_machine_is_killed_where_the_head_is_gone(tmp_path: Path) -> None:
    """It does not hear that it is to leave."""
    with group_without_head(tmp_path / "run") as group:
        pids = [status.pid for status in group.statuses()]
        os.kill(pids[1], signal.SIGSTOP)
        group.end()
        assert_gone(pids)
