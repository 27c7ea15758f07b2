"""Rows 2, 4, 5 and 23: the driver or Ray's head goes; no process and no lock stays behind, and the run goes on."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from cluster.observer import WorkerStatus
from cluster.ray_session import LOCK, PREFIX, TEMPORARY, remove_leftovers
from cluster.train import resume, train
from data_pipeline.config import Preempted
from pretrain.metrics_log import read_rows
from tests.faults.workers import ROOT, STEPS, Once, assert_gone, events, experiment, kinds, last

AGENT_SECONDS = 120.0
"""Two of Ray's own processes (its agents) look for their head for a minute before they end."""

Driver = tuple[subprocess.Popen[str], Path, list[psutil.Process]]
Drivers = Callable[..., AbstractContextManager[Driver]]

DRIVER = """
import sys
from pathlib import Path
from cluster.train import train
from data_pipeline.config import SegueError
from tests.faults.injector import Fault
from tests.faults.workers import experiment

run, place = Path(sys.argv[1]), Path(sys.argv[2])

def tell(statuses):
    if statuses[0].step > 6 and all(status.phase != "starting" for status in statuses):
        import ray
        print("there", ray._private.worker._global_node.get_temp_dir_path(), flush=True)

injector = Fault(sys.argv[3], 1, sys.argv[4], 8, place / "fault") if len(sys.argv) > 3 else None
try:
    train(experiment("steps=100", "checkpoint.every=4"), run, workers=2, on_status=tell, injector=injector)
except SegueError as error:
    sys.exit(f"exit code {error.exit_code}: {error}")
"""


@pytest.fixture(scope="module")
def driver() -> Iterator[Drivers]:
    """Starts a driver; of all processes that drivers had started, none is left once the tests of this file are done."""
    started: list[psutil.Process] = []

    @contextmanager
    def start(*arguments: object) -> Iterator[Driver]:
        """A driver whose run is on its way, its Ray's directory, and all processes below it."""
        with subprocess.Popen(
            [sys.executable, "-c", DRIVER, *map(str, arguments)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                assert process.stdout is not None
                directory = next(line for line in process.stdout if line.startswith("there ")).split()[1]
                below = psutil.Process(process.pid).children(recursive=True)
                started.extend(below)
                yield process, Path(directory), below
            finally:
                process.kill()

    yield start
    _, alive = psutil.wait_procs(started, timeout=AGENT_SECONDS)
    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []


def worker_pids(below: list[psutil.Process]) -> list[int]:
    found = [child.pid for child in below if child.name().startswith("ray::Worker")]
    assert len(found) == 2
    return found


@pytest.mark.slow
def test_a_killed_driver_leaves_no_process_and_nothing_that_is_in_the_way(driver: Drivers, tmp_path: Path) -> None:
    """Row 2, and row 23: its lease, its Ray's directory; the next start takes over one and sweeps the other."""
    run = tmp_path / "run"
    with driver(run, tmp_path) as (process, directory, below):
        workers = worker_pids(below)
        process.kill()
        process.wait()
        assert_gone(workers)
    assert (run / "lease.json").exists()
    assert directory.exists()
    command = [sys.executable, "launch.py", "resume", str(run)]
    resumed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert resumed.returncode == 0, resumed
    assert kinds(run)[-2:] == ["resumed", "finished"]
    assert events(run)[-2]["workers"] == 2
    assert not directory.exists()


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "moment"), [("freeze", "update"), ("hold", "save")])
def test_workers_that_are_stopped_or_wait_or_save_end_with_their_driver(
    driver: Drivers, tmp_path: Path, fault: str, moment: str
) -> None:
    """One hangs or is stopped, the other waits for it in a collective."""
    marker = tmp_path / "fault"
    with driver(tmp_path / "run", tmp_path, fault, moment) as (process, _, below):
        workers = worker_pids(below)
        while not marker.exists():
            assert process.poll() is None
            time.sleep(0.1)
        process.kill()
        process.wait()
        assert_gone(workers)


@pytest.mark.slow
@pytest.mark.parametrize("worker_too", [False, True])
def test_a_lost_head_ends_the_driver_with_its_own_code_and_no_process_stays(
    driver: Drivers, tmp_path: Path, console: Console, worker_too: bool
) -> None:
    """Row 4: Ray's own way is to end the driver after a minute, without a word, the workers still training."""
    run = tmp_path / "run"
    with driver(run, tmp_path) as (process, _, below):
        workers = worker_pids(below)
        (head,) = (child for child in below if child.name() == "gcs_server")
        head.kill()
        if worker_too:
            os.kill(workers[1], signal.SIGKILL)
        _, said = process.communicate(timeout=120)
        assert process.returncode == 1, "of sys.exit with a message"
        assert "exit code 6: the head of Ray's cluster at 127.0.0.1:" in said
        assert f"`resume {run}` goes on from step-" in said
        assert_gone(workers)
    assert kinds(run) == ["started", *(["lost"] if worker_too else []), "gave_up"]
    assert not (run / "lease.json").exists()
    if not worker_too:
        assert resume(run, console=console, workers=1) == 100


def test_leftovers_of_a_killed_driver_go(tmp_path: Path) -> None:
    """Row 23, of a directory that nobody holds locked."""
    left = Path(tempfile.mkdtemp(prefix=PREFIX, dir=TEMPORARY))
    (left / LOCK).touch()
    assert left in remove_leftovers()
    assert not left.exists()


def test_leftovers_of_a_live_driver_stay(ray_of_two: None) -> None:
    import ray

    ours = Path(ray._private.worker._global_node.get_temp_dir_path())
    assert ours not in remove_leftovers()
    assert ours.exists()


def test_asked_to_stop_all_save_and_another_number_goes_on(tmp_path: Path, console: Console, undisturbed: Path) -> None:
    """Row 5."""

    def terminate_this_driver(_: list[WorkerStatus]) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    run = tmp_path / "run"
    watcher = Once(5, terminate_this_driver)
    with pytest.raises(Preempted) as stopped:
        train(experiment(), run, workers=2, on_status=watcher, console=console)
    assert stopped.value.exit_code == 5
    saved = last(run).step
    assert saved >= 5
    assert f"`resume {run}` goes on" in str(stopped.value)
    assert kinds(run) == ["started", "preempted"]
    assert_gone(watcher.pids)
    assert resume(run, workers=1, console=console) == STEPS
    alone, together = ([row["loss"] for row in read_rows(r)] for r in (run, undisturbed))
    assert alone == pytest.approx(together, rel=1e-5)
    assert events(run)[2] | {"time": ""} == {
        "time": "",
        "event": "resumed",
        "step": saved,
        "workers": 1,
        "device": "cpu",
        "redone": 0,
    }
