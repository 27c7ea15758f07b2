"""FAULTS 43: the loggers' back ends fail, for real and for a while; training goes on, and no row is lost.

Storage fails by a limit on the length of files (RLIMIT_FSIZE), which the operating system enforces on every write.
"""

import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pretrain import config, run_directory
from pretrain.curves import FLUSH_EVERY, open_summary_writer
from pretrain.experiment import Experiment
from pretrain.group import Group
from pretrain.metrics_log import MetricsLog, read_rows
from pretrain.run import Watch, run
from pretrain.run_directory import read_events
from pretrain.trainer import Trainer

STEPS = 12


def limit_files(num_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, resource.RLIM_INFINITY))


@pytest.fixture(autouse=True)
def _no_limit() -> Iterator[None]:
    yield
    limit_files(resource.RLIM_INFINITY)


def warnings(directory: Path) -> list[str]:
    return [event["message"] for event in read_events(directory) if event["event"] == "warning"]


def trained(directory: Path, moment: Callable[[str, Trainer], None], *, tensorboard: bool = False) -> None:
    """A run of 12 steps that saves at the last only."""
    fixed = (f"steps={STEPS}", "checkpoint.every=100", "evaluate.every=null", f"log.tensorboard={tensorboard}".lower())
    experiment = config.load(Experiment, config.recipe_path("tiny_rbm"), fixed)
    if not directory.exists():
        run_directory.create(directory, experiment)
    assert run(experiment, directory, Group(), watch=Watch(moment=moment)) == STEPS


def curve(directory: Path, name: str) -> dict[int, float]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return {scalar.step: scalar.value for scalar in EventAccumulator(str(directory)).Reload().Scalars(name)}


@pytest.mark.parametrize("room", ["half a row", "nothing"])
def test_43_metrics_fail_for_a_while(tmp_path: Path, room: str, capsys: pytest.CaptureFixture[str]) -> None:
    """From step 4 to 8 half a row gets through, or nothing at all, and then the warning cannot be recorded either."""

    def fail_from_4_to_8(moment: str, trainer: Trainer) -> None:
        if moment == "data" and trainer.step == 4:
            limit_files((tmp_path / "run" / "metrics.jsonl").stat().st_size + 100 if room == "half a row" else 10)
        if moment == "data" and trainer.step == 8:
            limit_files(resource.RLIM_INFINITY)

    trained(tmp_path / "run", fail_from_4_to_8)
    rows = read_rows(tmp_path / "run")
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes().count(b"\n") == STEPS, "no torn line is left"
    (warning,) = warnings(tmp_path / "run")
    assert "metrics.jsonl cannot be written (File too large)" in warning
    assert ("events.jsonl cannot be written" in capsys.readouterr().err) == (room == "nothing")


@pytest.mark.parametrize("trouble", ["disk is full", "cannot be read"])
def test_43_rows_of_later_steps_are_dropped_when_the_storage_is_back(tmp_path: Path, trouble: str) -> None:
    """A run that goes on from step 4 while the disk is full, or its file is away: no row twice, and no row lost."""
    with MetricsLog(tmp_path, first_step=0, tensorboard=False) as log:
        for step in range(1, 9):
            log.write({"step": step, "loss": 1.0})
    path, away = tmp_path / "metrics.jsonl", tmp_path / "away"
    if trouble == "disk is full":
        limit_files(10)
    else:
        path.rename(away)
        path.mkdir()
    with MetricsLog(tmp_path, first_step=4, tensorboard=False) as log:
        log.write({"step": 5, "loss": 2.0})
        if trouble == "disk is full":
            limit_files(resource.RLIM_INFINITY)
        else:
            path.rmdir()
            away.rename(path)
        log.write({"step": 6, "loss": 2.0})
    rows = read_rows(tmp_path)
    assert [(row["step"], row["loss"]) for row in rows] == [(1, 1.0), (2, 1.0), (3, 1.0), (4, 1.0), (5, 2.0), (6, 2.0)]
    assert len(warnings(tmp_path)) == 1


def test_43_metrics_fail_to_the_end(tmp_path: Path) -> None:
    """The run ends well, and says how many rows are lost."""

    def fail_from_4(moment: str, trainer: Trainer) -> None:
        if moment == "data" and trainer.step == 4:
            directory = tmp_path / "run"
            (directory / "metrics.jsonl").rename(directory / "kept.jsonl")
            (directory / "metrics.jsonl").mkdir()

    trained(tmp_path / "run", fail_from_4)
    assert [w.partition("metrics.jsonl")[2] for w in warnings(tmp_path / "run")] == [
        " cannot be written (Is a directory); its rows wait until it can",
        " are lost: Is a directory",
    ]
    assert f"{STEPS - 4} rows" in warnings(tmp_path / "run")[1]
    assert [event["event"] for event in read_events(tmp_path / "run")][-1] == "finished"


def test_43_tensorboard_cannot_be_opened(tmp_path: Path) -> None:
    """A file lies in its place until step 6; in the end all curves are whole."""
    run_place = tmp_path / "run"

    def block_until_6(moment: str, trainer: Trainer) -> None:
        if moment == "restore":
            (run_place / "tensorboard").write_text("in the way")
        if moment == "data" and trainer.step == 6:
            (run_place / "tensorboard").unlink()

    trained(run_place, block_until_6, tensorboard=True)
    (warning,) = warnings(run_place)
    assert "TensorBoard cannot be written" in warning
    losses = {row["step"]: row["loss"] for row in read_rows(run_place)}
    assert curve(run_place / "tensorboard", "loss") == pytest.approx(losses)
    assert len(losses) == STEPS


class Failing:
    """A writer of curves that raises from one step to another, as a tracker does whose server is away."""

    def __init__(self, writer: Any, steps: range) -> None:
        self.writer, self.steps = writer, steps

    def add_scalar(self, name: str, value: float, step: int) -> None:
        if step in self.steps:
            raise ConnectionError("the server is away")
        self.writer.add_scalar(name, value, step)

    def flush(self) -> None:
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


def test_43_tensorboard_fails_in_the_middle(tmp_path: Path) -> None:
    """It is away while steps 150 to 199 are logged; afterwards it gets them from the run's own rows."""
    away = [range(150, 200)]

    def open_failing(directory: Path, first_step: int) -> Any:
        return Failing(open_summary_writer(directory, first_step), away[0])

    with MetricsLog(tmp_path, first_step=0, tensorboard=True, open_writer=open_failing) as log:
        for step in range(1, 301):
            if step == 200:
                away[0] = range(0)
            log.write({"step": step, "loss": float(step)})
    assert curve(tmp_path / "tensorboard", "loss") == {step: float(step) for step in range(1, 301)}
    assert [row["step"] for row in read_rows(tmp_path)] == list(range(1, 301))
    assert len(warnings(tmp_path)) == 1
    assert FLUSH_EVERY < 150, "some rows before the failure were known to be written"
