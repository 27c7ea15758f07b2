"""Rows 27, 28, 29, and 11 of reads: workers that are stopped, hang or are slow are named, with phase and stack."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from cluster.train import resume, train
from pretrain import config
from pretrain.experiment import Experiment
from tests.faults.injector import Fault, Slow
from tests.faults.workers import ROOT, Once, assert_gone, events, kinds

HANG_MINUTES = 0.2


def quick(*overrides: str) -> Experiment:
    """Few steps; only what the test lets happen takes long in them."""
    fixed = (
        "steps=12",
        "checkpoint.every=5",
        "evaluate.every=null",
        f"supervision.hang_minutes={HANG_MINUTES}",
        f"checkpoint.timeout_minutes={HANG_MINUTES / 2}",
        "supervision.straggler_factor=1000",
    )
    return config.load(Experiment, config.recipe_path("tiny_transformer_xl"), (*fixed, *overrides))


@pytest.mark.slow
@pytest.mark.usefixtures("ray_of_two")
def test_a_stopped_worker_is_named_as_it_was_last_seen_and_the_run_goes_on(tmp_path: Path, console: Console) -> None:
    """It answers nothing, and does not even hear that it is to end; the others wait for it in a collective."""
    run = tmp_path / "run"
    watcher = Once(99, lambda _: None)
    fault = Fault("freeze", rank=1, moment="forward_backward", step=7, marker=tmp_path / "frozen")
    assert train(quick(), run, workers=2, console=console, injector=fault, on_status=watcher) == 12
    assert kinds(run) == ["started", "lost", "resumed", "finished"]
    lost = events(run)[1]
    (loss,) = lost["losses"]
    assert (loss["worker"], loss["node"]) == (1, "127.0.0.1")
    assert "has not answered for" in lost["workers"][0] or "hangs" in lost["workers"][0]
    assert loss["stack"], "of its last answer"
    assert len(watcher.pids) == 4
    assert_gone(watcher.pids)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_of_two")
def test_a_hung_loader_is_named_with_its_phase_and_its_stack_and_the_run_goes_on(
    tmp_path: Path, console: Console
) -> None:
    run = tmp_path / "run"
    fault = Fault("hang", rank=0, moment="data", step=7, marker=tmp_path / "hung")
    assert train(quick(), run, workers=2, console=console, injector=fault) == 12
    assert kinds(run) == ["started", "lost", "resumed", "finished"]
    lost, resumed = events(run)[1:3]
    assert len(lost["workers"]) == 1, "the one that waits for it is not accused"
    assert lost["workers"][0].startswith("worker 0 (process ")
    assert "hangs" in lost["workers"][0]
    (loss,) = lost["losses"]
    assert loss["phase"] == "data"
    assert loss["stack"][0].endswith("sleep_for_ever")
    assert "injector.py:" in loss["stack"][0]
    assert resumed["step"] == 5


@pytest.mark.slow
@pytest.mark.usefixtures("ray_of_two")
def test_storage_that_hangs_as_a_checkpoint_is_read_is_named_and_the_run_goes_on(
    tmp_path: Path, console: Console
) -> None:
    """Row 11, of reads."""
    run = tmp_path / "run"
    assert train(quick("steps=5"), run, console=console) == 5
    fault = Fault("hang", rank=1, moment="restore", step=0, marker=tmp_path / "hung")
    begun = time.monotonic()
    more = {"overrides": ("steps=8",), "allowed": ("steps",)}
    assert resume(run, workers=2, console=console, injector=fault, **more) == 8
    assert time.monotonic() - begun < 60 * HANG_MINUTES + 60
    assert kinds(run)[2:] == ["lost", "changed", "resumed", "finished"]
    lost, resumed = events(run)[2:4]
    (loss,) = lost["losses"]
    assert (loss["worker"], loss["phase"]) == (1, "restore")
    assert "in its phase 'restore' at " in lost["workers"][0]
    assert resumed["step"] == 5


ALONE = """
import sys
from pathlib import Path
from cluster.train import resume, train
from tests.faults.injector import Fault
from tests.faults.test_workers_hung import quick
run = Path(sys.argv[1])
fault = Fault("hang", 0, sys.argv[3], int(sys.argv[4]), Path(sys.argv[2]))
if run.exists():
    resume(run, overrides=("steps=12",), allowed=("steps",), injector=fault)
else:
    train(quick(), run, injector=fault)
"""


def alone(run: Path, marker: Path, moment: str, step: int) -> subprocess.CompletedProcess[str]:
    """A run in the driver's own process that hangs at this moment."""
    return subprocess.run(
        [sys.executable, "-c", ALONE, str(run), str(marker), moment, str(step)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.slow
def test_a_hung_worker_without_a_driver_ends_itself_with_its_stack(tmp_path: Path, console: Console) -> None:
    run = tmp_path / "run"
    ended = alone(run, tmp_path / "hung", "data", 7)
    assert ended.returncode == 6, ended.stderr
    assert "hangs" in ended.stderr
    assert "sleep_for_ever" in ended.stderr
    assert kinds(run) == ["started", "hung"]
    hung = events(run)[1]
    assert (hung["worker"], hung["phase"]) == (0, "data")
    assert hung["stack"][0].endswith("sleep_for_ever")
    assert resume(run, console=console) == 12
    assert events(run)[2]["step"] == 5


@pytest.mark.slow
def test_a_hung_read_without_a_driver_ends_the_worker_too(tmp_path: Path, console: Console) -> None:
    """Row 11, of reads."""
    run = tmp_path / "run"
    assert train(quick("steps=5"), run, console=console) == 5
    ended = alone(run, tmp_path / "hung", "restore", 0)
    assert ended.returncode == 6, ended.stderr
    assert "worker 0 " in ended.stderr
    assert "in its phase 'restore'" in ended.stderr
    assert events(run)[-1]["phase"] == "restore"
    assert resume(run, console=console, allowed=("steps",)) == 12


@pytest.mark.slow
@pytest.mark.usefixtures("ray_of_two")
def test_a_slow_worker_is_reported_once_with_its_phase(tmp_path: Path, console: Console) -> None:
    run = tmp_path / "run"
    settings = quick("steps=70", "supervision.straggler_factor=3", "supervision.hang_minutes=5")
    slow = Slow(rank=1, moment="data", seconds=0.5)
    assert train(settings, run, workers=2, console=console, injector=slow) == 70
    (straggler,) = (event for event in events(run) if event["event"] == "straggler")
    assert (straggler["worker"], straggler["node"], straggler["phase"]) == (1, "127.0.0.1", "data")
    assert straggler["factor"] > 3
    assert straggler["step"] < 50


@pytest.mark.slow
@pytest.mark.usefixtures("ray_of_two")
def test_a_slow_forward_is_seen_where_the_others_wait_for_it_in_their_backward(
    tmp_path: Path, console: Console
) -> None:
    """As they do under ZeRO, whose collectives are part of backward."""
    run = tmp_path / "run"
    zero = ("engine={kind: deepspeed, zero_stage: 1, device: cpu}", "checkpoint.every=100")
    settings = quick("steps=45", "supervision.straggler_factor=3", "supervision.hang_minutes=5", *zero)
    assert train(settings, run, workers=2, console=console, injector=Slow(rank=1, moment="forward", seconds=0.3)) == 45
    (straggler,) = (event for event in events(run) if event["event"] == "straggler")
    assert (straggler["worker"], straggler["phase"]) == (1, "forward")
