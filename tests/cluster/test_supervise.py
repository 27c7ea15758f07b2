"""What a supervisor makes of errors that its workers raise, and of the Ray it starts."""

from pathlib import Path

import psutil
import pytest
from rich.console import Console

from cluster import supervise
from cluster.job import Job
from cluster.supervise import Failures, Supervisor, device_before
from cluster.topology import Shape
from cluster.train import last_workers, resume, train
from data_pipeline.config import Corrupt, GaveUp
from pretrain import run_directory
from pretrain.run_directory import record_event
from tests.faults.injector import Fault, Faults
from tests.faults.workers import events, experiment, kinds

pytestmark = pytest.mark.usefixtures("ray_of_two")


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


def test_what_a_user_can_mend_is_not_tried_again(tmp_path: Path, console: Console) -> None:
    """A damaged checkpoint is found in the workers; the driver raises it as it was raised there."""
    run = tmp_path / "run"
    train(experiment("steps=4"), run, workers=2, console=console)
    for path in run.glob("checkpoints/step-*/worker-00001.safetensors"):
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    with pytest.raises(Corrupt, match="none of its checkpoints is good"):
        resume(run, console=console)
    assert "lost" not in kinds(run)
    assert "Corrupt" in (run / "logs" / "worker-0.log").read_text()


@pytest.mark.slow
def test_failures_without_a_checkpoint_further_on_are_bounded_by_the_setting(tmp_path: Path, console: Console) -> None:
    """A loss after a checkpoint further on starts the count anew."""
    steps = [2, 6, 7, 8]
    faults = [Fault("raise", 1, "update", step, tmp_path / f"fault-{step}") for step in steps]
    run = tmp_path / "run"
    saved_at_once = "checkpoint={every: 5, background: false}"
    settings = experiment("steps=10", saved_at_once, "supervision.max_failures=2")
    with pytest.raises(GaveUp, match="after 2 failures in a row") as gave_up:
        train(settings, run, workers=2, console=console, injector=Faults(faults))
    assert "a fault that a test lets happen" in str(gave_up.value)
    assert [event["failures"] for event in events(run) if event["event"] == "lost"] == [1, 1, 2]
    assert kinds(run)[-1] == "gave_up"


def test_only_a_step_further_than_ever_before_is_progress() -> None:
    """Nor is another revision of the same step, which a roll-back makes."""
    names = ["step-000000005", "step-000000010", "step-000000005", "step-000000010", "step-000000010-r1", None]
    failures = Failures(None)
    counted = []
    for name in [None, *names, "step-000000015"]:
        failures.add(Path("checkpoints", name) if name else None)
        counted.append(failures.in_a_row)
    assert counted == [1, 1, 1, 2, 3, 4, 5, 1]
    resumed = Failures(Path("checkpoints", "step-000000010"))
    resumed.add(Path("checkpoints", "step-000000010"))
    assert resumed.in_a_row == 1
    resumed.add(Path("checkpoints", "step-000000005"))
    assert resumed.in_a_row == 2


def test_the_next_start_takes_the_size_that_was_asked_for(tmp_path: Path) -> None:
    assert last_workers(tmp_path) == 1
    record_event(tmp_path, "started", workers=4)
    record_event(tmp_path, "lost", asked_workers=4, next_workers=2)
    record_event(tmp_path, "versions", message="told between the two, and no matter")
    record_event(tmp_path, "resumed", workers=2)
    assert last_workers(tmp_path) == 4
    record_event(tmp_path, "resumed", workers=2)
    assert last_workers(tmp_path) == 2, "asked for after the driver's end"
    record_event(tmp_path, "lost", asked_workers=2, next_workers=1)
    record_event(tmp_path, "gave_up")
    record_event(tmp_path, "resumed", workers=1)
    assert last_workers(tmp_path) == 1, "asked for after it gave up"


def test_a_run_that_waits_stays_on_gpus(tmp_path: Path) -> None:
    assert device_before(tmp_path, "auto") == "auto"
    record_event(tmp_path, "started", step=0, workers=2)  # by a version that did not tell
    assert device_before(tmp_path, "auto") == "auto"
    record_event(tmp_path, "resumed", step=5, workers=2, device="cuda")
    record_event(tmp_path, "lost", next_workers=0)
    assert device_before(tmp_path, "auto") == "cuda"
    assert device_before(tmp_path, "cpu") == "cpu"
    record_event(tmp_path, "resumed", step=5, workers=2, device="cpu")
    assert device_before(tmp_path, "auto") == "auto", "a run of processors takes GPUs once there are some"


@pytest.mark.parametrize(("minutes", "asked"), [(0.0, "auto"), (1.0, "cuda")])
def test_who_waits_asks_for_the_device_it_ran_on(
    minutes: float, asked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "run"
    run_directory.create(directory, experiment(f"supervision.wait_minutes={minutes}"))
    record_event(directory, "started", step=0, workers=1, device="cuda")
    found = []

    def bundle(device: str, shape: Shape, *, waits: bool) -> dict[str, float]:
        found.append((device, waits))
        raise Corrupt("seen enough")

    monkeypatch.setattr(supervise, "bundle", bundle)
    with pytest.raises(Corrupt, match="seen enough"):
        Supervisor(Job(directory, Path.cwd()), Shape(1)).run()
    assert found == [(asked, minutes > 0)]
