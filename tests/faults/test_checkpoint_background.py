"""Rows 6 to 11 of the fault matrix, while training goes on: saves in the background of real worker processes that are
killed, fail or hang in any phase."""

import os
import signal
import subprocess
import sys
import textwrap
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from cluster.train import resume, train
from pretrain import config
from pretrain.checkpoint import (
    NotSaved,
    Phase,
    Piece,
    Saver,
    compare,
    gather_weights,
    latest,
    newest_good,
    save,
    verify,
)
from pretrain.checkpoint.layout import Place, leftovers, places
from pretrain.experiment import Experiment
from pretrain.group import Group, join
from pretrain.metrics_log import read_rows
from tests.pretrain.checkpoint.cases import DESCRIPTION
from tests.processes import ROOT, free_port, run_workers

PHASES: tuple[Phase, ...] = get_args(Phase)
LENGTH = 1000


def pieces(step: int, rank: int, num_workers: int) -> list[Piece]:
    """Weights that are the step's number, cut equally."""
    each = LENGTH // num_workers
    return [Piece("weights/w", (LENGTH,), rank * each, torch.full((each,), float(step)))]


def is_of(run: Path, step: int) -> bool:
    """Whether the run goes on from a whole checkpoint of this step."""
    reader = newest_good(run, log=pytest.fail)
    assert reader is not None
    weights = gather_weights(reader)["w"]
    return reader.step == step and latest(run) == reader.path and torch.equal(weights, torch.full((LENGTH,), step))


def fork_workers(num_workers: int, work: Callable[[Group], object], *, timeout: float = 120.0) -> list[int]:
    """How each of the processes ended that worked together; all are killed after the time-out."""
    port, children = free_port(), []
    for rank in range(num_workers):
        child = os.fork()
        if child == 0:
            try:
                signal.alarm(int(timeout))
                group = join(
                    rank,
                    num_workers,
                    rank,
                    address="127.0.0.1",
                    port=port,
                    timeout=timedelta(seconds=timeout),
                    device=torch.device("cpu"),
                )
                work(group)
            except Exception:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def train_and_save(group: Group, run: Path, victim: int, phase: Phase) -> None:
    """Step 2 is saved while step 3 is computed; the victim kills itself in the phase of that save."""

    def die(now: Phase) -> None:
        if (group.rank, now) == (victim, phase):
            os.kill(os.getpid(), signal.SIGKILL)

    with Saver(run, group, keep=None, timeout_seconds=60, phase=die) as saver:
        saver.start(step=2, pieces=pieces(2, group.rank, group.world_size), description=DESCRIPTION)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not group.all_reduce_sum(torch.tensor(float(saver.failed))):
            time.sleep(0.01)


@pytest.mark.parametrize(
    ("victim", "phase"), [*((0, phase) for phase in PHASES), *((1, phase) for phase in PHASES[:3])]
)
def test_kill_9_in_any_phase_of_a_save_in_the_background(tmp_path: Path, victim: int, phase: Phase) -> None:
    save(tmp_path, step=1, pieces=pieces(1, 0, 1), description=DESCRIPTION, group=Group())
    statuses = fork_workers(2, lambda group: train_and_save(group, tmp_path, victim, phase))
    assert statuses[victim] == -signal.SIGKILL
    assert statuses[1 - victim] == 1, "the other worker hears of it, and does not hang"
    moved = PHASES.index(phase) >= PHASES.index("pointer moved")
    assert is_of(tmp_path, 2 if moved else 1)
    assert all(verify(tmp_path / "checkpoints" / place.name) == [] for place in places(tmp_path))
    save(tmp_path, step=2, pieces=pieces(3, 0, 1), description=DESCRIPTION, group=Group())
    assert leftovers(tmp_path) == []
    assert [place.step for place in places(tmp_path)] == [1, 2]


SIGNALLED = """
import sys
from pathlib import Path
from cluster.train import train
from data_pipeline.config import SegueError
from tests.faults.injector import Signals
from tests.faults.test_checkpoint_background import short

try:
    train(short(), Path(sys.argv[1]), injector=Signals([int(number) for number in sys.argv[2:]], save=2))
except SegueError as error:
    print(error)
    sys.exit(error.exit_code)
except KeyboardInterrupt:
    sys.exit(130)
"""


def short() -> Experiment:
    fixed = ("steps=16", "checkpoint.every=5", "checkpoint.keep=10", "evaluate.every=null", "log.tensorboard=false")
    return config.load(Experiment, config.recipe_path("tiny_transformer_xl"), fixed)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    assert train(short(), run) == 16
    return run


@pytest.mark.parametrize(
    ("numbers", "code"),
    [
        pytest.param((signal.SIGTERM,), 5, marks=pytest.mark.slow),
        ((signal.SIGTERM, signal.SIGTERM), 5),
        pytest.param((signal.SIGINT, signal.SIGUSR1), 5, marks=pytest.mark.slow),
        ((signal.SIGINT, signal.SIGINT), 130),
    ],
)
def test_signals_while_saving_tear_nothing(
    tmp_path: Path, undisturbed: Path, numbers: tuple[int, ...], code: int
) -> None:
    """Row 6, of a run with its own handling of signals; while step 10 is saved, step 5 is the last that is whole."""
    run = tmp_path / "run"
    command = [sys.executable, "-c", SIGNALLED, str(run), *map(str, map(int, numbers))]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ended.returncode == code, ended
    reader = newest_good(run, log=pytest.fail)
    assert reader is not None
    assert latest(run) == reader.path
    assert [verify(run / "checkpoints" / place.name) for place in places(run)] == [[]] * len(places(run))
    if code == 5:
        assert 10 <= reader.step < 16
        assert f"`resume {run}` goes on" in ended.stdout
        assert leftovers(run) == []
    assert reader.step >= 5
    assert resume(run) == 16
    assert leftovers(run) == []
    assert compare(*(newest_good(r, log=pytest.fail) for r in (run, undisturbed))).differences == []  # type: ignore[arg-type]
    rows = [[(row["step"], row["loss"]) for row in read_rows(r)] for r in (run, undisturbed)]
    assert rows[0] == rows[1]


def trouble(
    group: Group, run: Path, kind: str, rank: int, phase: Phase, timeout_seconds: float, ends: str = "fails"
) -> dict[str, Any]:
    """Steps 1 and 3 are saved; in step 2 the worker's storage fails or hangs; training goes on all the time."""
    ill, seconds = [False], []

    def meet(now: Phase) -> None:
        if ill[0] and (group.rank, now) == (rank, phase):
            if kind == "hangs":
                time.sleep(1000)
            raise OSError(28, "No space left on device")

    saver = Saver(run, group, keep=None, timeout_seconds=60, phase=meet)
    steps_while_saving, said = 0, []
    for step in (1, 2, 3):
        ill[0], saver.timeout_seconds = step == 2, timeout_seconds if step == 2 else 60
        saver.start(step=step, pieces=pieces(step, group.rank, group.world_size), description=DESCRIPTION)
        begun = time.monotonic()
        while step == 2 and ends == "fails":
            steps_while_saving += 1
            if group.all_reduce_sum(torch.tensor([float(saver.failed), 1.0]))[0]:
                break
        try:
            saver.join()
        except NotSaved as error:
            said.append(str(error))
        seconds.append(time.monotonic() - begun)
        if step == 2:
            still = is_of(run, 2 if ends == "saved" else 1) if group.leads else True
            group.barrier()
    saver.close()
    return {"said": said, "still": still, "steps": steps_while_saving, "seconds": seconds[1]}


@pytest.mark.parametrize(
    ("rank", "phase"), [(0, "block written"), (1, "block written"), (1, "pieces written"), (0, "manifest written")]
)
def test_a_full_disk_of_one_worker_fails_the_save_on_all_and_training_goes_on(
    tmp_path: Path, rank: int, phase: Phase
) -> None:
    results = run_workers(2, trouble, tmp_path, "fails", rank, phase, 60.0)
    assert results[0]["said"] == results[1]["said"]
    (message,) = results[0]["said"]
    assert f"worker {rank}: OSError" in message
    assert "No space left on device" in message
    assert results[0]["still"]
    assert results[0]["steps"] == results[1]["steps"] > 1
    assert [place.step for place in places(tmp_path)] == [1, 3]
    assert is_of(tmp_path, 3)
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(("rank", "phase"), [(1, "block written"), (0, "manifest written"), (0, "renamed")])
def test_storage_that_hangs_on_one_worker_is_named_by_all_in_time_and_training_goes_on(
    tmp_path: Path, rank: int, phase: Phase
) -> None:
    results = run_workers(2, trouble, tmp_path, "hangs", rank, phase, 2.0)
    assert results[0]["said"] == results[1]["said"]
    assert results[0]["said"] == [
        f"checkpoint not saved: worker {rank}: its storage hangs since '{phase}'; given up after 2 s"
    ]
    assert results[0]["still"]
    assert results[0]["seconds"] < 60
    assert is_of(tmp_path, 3)
    assert leftovers(tmp_path) == []
    assert Place(3) in places(tmp_path)


def test_a_removal_that_hangs_fails_no_save(tmp_path: Path) -> None:
    """The leader's storage hangs after the pointer has moved: the other worker hears of nothing."""
    results = run_workers(2, trouble, tmp_path, "hangs", 0, "pointer moved", 2.0, "saved")
    assert [result["said"] for result in results] == [[], []]
    assert is_of(tmp_path, 3)


HANGING = """
import sys, time, torch, datetime
from pathlib import Path
from pretrain.checkpoint import Description, NotSaved, Piece, Saver
from pretrain.group import join

rank, port, run = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
group = join(rank, 2, rank, address="127.0.0.1", port=port, timeout=datetime.timedelta(seconds=200),
             device=torch.device("cpu"))
hang = lambda now: time.sleep(1000) if rank == 1 else None
try:
    with Saver(run, group, keep=None, timeout_seconds=1, phase=hang) as saver:
        saver.start(step=1, pieces=[Piece("x", (2,), rank, torch.ones(1))], description=Description())
except NotSaved as error:
    print(error)
"""


def test_a_thread_that_hangs_does_not_keep_its_process_from_ending(tmp_path: Path) -> None:
    port = str(free_port())
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(HANGING), str(rank), port, str(tmp_path)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said = [worker.communicate(timeout=120)[0] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    # Both have ended; torch's own threads now and then abort (-6) while the interpreter ends, after all is done.
    assert {worker.returncode for worker in workers} <= {0, -6}
    assert said[0] == said[1]
    assert "worker 1: its storage hangs since 'directory made'" in said[0]
