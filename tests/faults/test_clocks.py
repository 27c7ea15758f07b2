"""FAULTS 31: clocks that are an hour off, or are set while a job runs, have no effect: counters order everything."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from data_pipeline.config import Refused
from pretrain import checkpoint, config, run_directory
from pretrain.checkpoint.holds import Holds
from pretrain.checkpoint.layout import Place
from pretrain.checkpoint.sealed import seal, unseal
from pretrain.experiment import Experiment
from pretrain.group import Group
from pretrain.lease import Lease
from pretrain.metrics_log import read_rows
from pretrain.run import run

ROOT = Path(__file__).parents[2]
HOUR = 3600

WITH_A_CLOCK_OFF = """
import sys, time, pathlib, psutil
off, clock, boot = float(sys.argv[2]), time.time, psutil.boot_time()
time.time = lambda: clock() + off
psutil._pslinux.boot_time = lambda: boot + off  # /proc/stat tells another one after the clock was set
psutil._pslinux.BOOT_TIME = boot + off
from pretrain.checkpoint import held
from pretrain.lease import Lease
with {"lease": Lease, "checkpoint": held}[sys.argv[3]](pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@contextmanager
def holder(what: str, path: Path, off: int) -> Iterator[subprocess.Popen[str]]:
    """A process that took a lease or holds a checkpoint before the clock was set by so many seconds."""
    command = [sys.executable, "-c", WITH_A_CLOCK_OFF, str(path), str(off), what]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("off", [-HOUR, HOUR])
def test_31_a_lease_made_before_the_clock_was_set_holds(tmp_path: Path, off: int) -> None:
    with holder("lease", tmp_path, off) as process:
        os.utime(tmp_path / "lease.json", (off, HOUR + off))
        with pytest.raises(Refused, match=f"process {process.pid}"), Lease(tmp_path):
            pass


@pytest.mark.parametrize("off", [-HOUR, HOUR])
def test_31_a_checkpoint_that_is_read_since_before_the_clock_was_set_stays(tmp_path: Path, off: int) -> None:
    """And the hold of a process that has ended does not."""
    path = tmp_path / "checkpoints" / Place(1).name
    path.mkdir(parents=True)
    with holder("checkpoint", path, off) as process:
        assert Holds(tmp_path).of(Place(1)) == [f"process {process.pid} on {socket.gethostname()}"]
    assert list(path.parent.glob("*.held-*"))
    assert Holds(tmp_path).of(Place(1)) == []


def test_31_a_stale_lease_from_the_future_is_taken_over(tmp_path: Path) -> None:
    with Lease(tmp_path) as lease:
        ours = json.loads((tmp_path / "lease.json").read_text())
    gone = {**ours, "token": "gone", "pid": 2**22 + 1, "host": socket.gethostname()}
    (tmp_path / "lease.json").write_text(json.dumps(gone))
    ahead = (tmp_path / "lease.json").stat().st_mtime + HOUR
    os.utime(tmp_path / "lease.json", (ahead, ahead))
    with Lease(tmp_path) as second:
        second.check()
    assert lease.owner.token != second.owner.token


def experiment(*overrides: str) -> Experiment:
    fixed = ("checkpoint.every=4", "checkpoint.keep=2", "evaluate.every=null", "log.tensorboard=false")
    return config.load(Experiment, config.recipe_path("tiny_rbm"), (*fixed, *overrides))


def turn_time_around(directory: Path) -> None:
    """The newest of everything seems the oldest, by hours: file times, times in events, dates of checkpoints."""
    for number, path in enumerate(sorted((directory / "checkpoints").glob("step-*"))):
        manifest = unseal(path / "manifest.json")
        manifest["created"] = f"2026-11-21T{20 - number:02d}:00:00+00:00"
        (path / "manifest.json").write_bytes(seal(manifest))
        for file in (*path.iterdir(), path):
            os.utime(file, (0, 10**9 - number * HOUR))
    events = [json.loads(line) for line in (directory / "events.jsonl").read_text().splitlines()]
    turned = [{**event, "time": f"2026-11-21T{20 - hour:02d}:00:00+0000"} for hour, event in enumerate(events)]
    (directory / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in turned))
    for name in ("experiment.yaml", "events.jsonl", "metrics.jsonl"):
        os.utime(directory / name, (0, 10**9 + 20 * HOUR))


def test_31_a_run_goes_on_from_its_last_step_whatever_the_dates_say(tmp_path: Path) -> None:
    turned, undisturbed = tmp_path / "turned", tmp_path / "undisturbed"
    for directory, steps in ((turned, "steps=12"), (undisturbed, "steps=12")):
        run_directory.create(directory, experiment(steps))
        run(experiment(steps), directory, Group())
    shutil.copytree(turned, tmp_path / "copy")
    turn_time_around(turned)
    newest = checkpoint.latest(turned)
    assert newest is not None
    assert newest.name == "step-000000012"
    for directory in (turned, undisturbed):
        assert run(experiment("steps=20"), directory, Group(), allowed=("steps",)) == 20
    resumed = [event["step"] for event in run_directory.read_events(turned) if event["event"] == "resumed"]
    assert resumed == [12]
    kept = [[info.step for info in checkpoint.list_checkpoints(d)] for d in (turned, undisturbed)]
    assert kept == [[16, 20], [16, 20]], "what is kept is chosen by steps"
    readers = [checkpoint.newest_good(d, log=pytest.fail) for d in (turned, undisturbed)]
    assert all(readers)
    assert checkpoint.compare(*readers).equal  # type: ignore[arg-type]
    assert [row["loss"] for row in read_rows(turned)] == [row["loss"] for row in read_rows(undisturbed)]
