"""Real workers placed by Ray: they are lost, stopped and fail, and the run carries on or says why not."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from cluster.observer import WorkerStatus
from cluster.train import resume, train
from data_pipeline.config import Corrupt, Preempted
from pretrain import checkpoint, config
from pretrain.experiment import Experiment
from pretrain.metrics_log import read_rows

pytestmark = pytest.mark.usefixtures("ray_of_two")
ROOT = Path(__file__).parents[2]
STEPS = 60


def experiment(*overrides: str) -> Experiment:
    """Its steps are slow enough that a supervisor, which looks three times a second, sees it at work."""
    slow = ("batch.rows=16", "model.num_layers=12")
    fixed = (f"steps={STEPS}", "checkpoint.every=25", "evaluate.every=null", *slow)
    return config.load(Experiment, config.recipe_path("tiny_transformer_xl"), (*fixed, *overrides))


def events(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]


def last(run: Path) -> checkpoint.CheckpointReader:
    found = checkpoint.newest_good(run, log=lambda line: pytest.fail(line))
    assert found is not None
    return found


def assert_gone(pids: Iterable[int]) -> None:
    """All have ended; the kernel and their parent may need a moment to say so."""
    left = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    _, alive = psutil.wait_procs(left, timeout=5)
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


@pytest.fixture(scope="module")
def undisturbed(console: Console, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    assert train(experiment(), run, workers=2, console=console) == STEPS
    assert [event["event"] for event in events(run)] == ["started", "finished"]
    return run


def test_a_killed_worker_changes_no_bit(tmp_path: Path, console: Console, undisturbed: Path) -> None:
    def kill_worker_1(statuses: list[WorkerStatus]) -> None:
        os.kill(statuses[1].pid, signal.SIGKILL)

    run = tmp_path / "run"
    watcher = Once(30, kill_worker_1)
    assert train(experiment(), run, workers=2, on_status=watcher, console=console) == STEPS
    assert watcher.acted_at is not None
    assert len(watcher.pids) == 4, "both workers were started anew"
    assert_gone(watcher.pids)
    happened = events(run)
    assert [event["event"] for event in happened] == ["started", "lost", "resumed", "finished"]
    assert happened[1]["workers"][0].startswith("worker 1 (process ")
    assert happened[2]["step"] in (25, 50)
    compared = checkpoint.compare(last(run), last(undisturbed))
    assert compared.differences == []
    assert len(compared.tensors) > 50
    rows = [[(row["step"], row["loss"]) for row in read_rows(r)] for r in (run, undisturbed)]
    assert rows[0] == rows[1]


def test_asked_to_stop_all_save_and_another_number_goes_on(tmp_path: Path, console: Console, undisturbed: Path) -> None:
    def terminate_this_driver(_: list[WorkerStatus]) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    run = tmp_path / "run"
    watcher = Once(5, terminate_this_driver)
    with pytest.raises(Preempted) as stopped:
        train(experiment(), run, workers=2, on_status=watcher, console=console)
    assert stopped.value.exit_code == 5
    saved = last(run).step
    assert saved >= 5
    assert [event["event"] for event in events(run)] == ["started", "preempted"]
    assert_gone(watcher.pids)
    assert resume(run, workers=1, console=console) == STEPS
    alone, together = ([row["loss"] for row in read_rows(r)] for r in (run, undisturbed))
    assert alone == pytest.approx(together, rel=1e-5)
    assert events(run)[2] | {"time": ""} == {"time": "", "event": "resumed", "step": saved, "workers": 1}


def test_ray_listens_on_loopback_only() -> None:
    session = psutil.Process().children(recursive=True)
    listening = {
        connection.laddr
        for process in session
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert len(listening) > 3
    assert [address for address in listening if address.ip not in ("127.0.0.1", "::ffff:127.0.0.1", "::1")] == []


def test_what_a_user_can_mend_is_not_tried_again(tmp_path: Path, console: Console, undisturbed: Path) -> None:
    """A damaged checkpoint is found in the workers; the driver raises it as it was raised there."""
    run = tmp_path / "run"
    shutil.copytree(undisturbed, run)
    for path in run.glob("checkpoints/step-*/worker-00001.safetensors"):
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    with pytest.raises(Corrupt, match="none of its checkpoints is good"):
        resume(run, console=console)
    assert "lost" not in [event["event"] for event in events(run)]
    assert "Corrupt" in (run / "logs" / "worker-0.log").read_text()


def test_workers_do_not_outlive_the_driver(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(tmp_path / "run")], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as driver:
        assert driver.stdout is not None
        try:
            found = next(line for line in driver.stdout if line.startswith("pids "))
            workers = [psutil.Process(int(pid)) for pid in found.split()[1:]]
            assert len(workers) == 2
        finally:
            driver.kill()
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert alive == []


DRIVER = """
import sys
from pathlib import Path
from cluster.train import train
from pretrain import config
from pretrain.experiment import Experiment

def tell(statuses):
    if all(status.step > 0 for status in statuses):
        print("pids", *(status.pid for status in statuses), flush=True)

recipe = config.load(Experiment, config.recipe_path("tiny_transformer_xl"), ("steps=1000000", "evaluate.every=null"))
train(recipe, Path(sys.argv[1]), workers=2, on_status=tell)
"""


@pytest.mark.slow
def test_silent_workers_are_ended(tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is stopped (SIGSTOP) answers nothing, and does not even hear that it is to end."""
    monkeypatch.setattr("cluster.worker_group.SILENCE_SECONDS", 6.0)
    monkeypatch.setattr("cluster.worker_group.END_SECONDS", 0.5)

    def freeze_worker_1(statuses: list[WorkerStatus]) -> None:
        os.kill(statuses[1].pid, signal.SIGSTOP)

    run = tmp_path / "run"
    watcher = Once(1, freeze_worker_1)
    assert train(experiment("steps=30"), run, workers=2, on_status=watcher, console=console) == 30
    lost = events(run)[1]
    assert lost["event"] == "lost"
    assert "has not answered for 6 s" in lost["workers"][0]
    assert_gone(watcher.pids)
