"""A pod that is about to be stopped: the run's processes in it are told, and it waits until they have saved."""

import shlex
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from cluster.pre_stop import WORKER_TITLE, is_of_a_run, stop
from cluster.worker import Worker
from tests.faults.workers import ROOT, assert_gone, has_reached, kinds, losses, wait_until

DRIVER = """
import sys
from pathlib import Path
from cluster.train import train
from data_pipeline.config import SegueError
from tests.faults.workers import experiment
try:
    train(experiment("steps=4000", "checkpoint.every=4000"), Path(sys.argv[1]), workers=2)
except SegueError as error:
    sys.exit(error.exit_code)
"""


def test_the_title_is_that_of_the_workers() -> None:
    assert f"ray::{Worker.__name__}" == WORKER_TITLE


@pytest.mark.slow
@pytest.mark.parametrize("told", ["a worker", "the driver"])
def test_all_save_before_one_pod_is_stopped(told: str, tmp_path: Path) -> None:
    """Of all workers only one is in the pod, or only the driver; `stop` is shown this run's processes alone."""
    run = tmp_path / "run"
    command = shlex.join([sys.executable, "-c", DRIVER, str(run), "train", "--carry-on"])
    shell = subprocess.Popen(["sh", "-c", f"{command}; exit $?"], cwd=ROOT)  # as Ray starts the driver of a job
    processes: list[psutil.Process] = []
    try:
        wait_until(lambda: has_reached(run, 3), 120, "the third step")
        processes = psutil.Process(shell.pid).children(recursive=True)
        driver, *others = (process for process in processes if is_of_a_run(process.cmdline()))
        assert len(others) == 2
        not_in_the_pod = [driver, others[1]] if told == "a worker" else others
        assert stop((process for process in processes if process not in not_in_the_pod), 60) == []
        assert shell.wait(60) == 5
    finally:
        for left in processes:
            if left.is_running():
                left.kill()
        shell.kill()
        shell.wait(60)
    assert kinds(run)[-1] == "preempted"
    assert losses(run)[-1][0] >= 3
    assert_gone([process.pid for process in processes])


def test_who_does_not_end_in_time_is_named() -> None:
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    command = [sys.executable, "-c", deaf, "train", "--carry-on"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert [left.pid for left in stop([psutil.Process(process.pid)], 0.2)] == [process.pid]
        process.kill()
