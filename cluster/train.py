"""Training from the driver's side: check everything, claim the run directory, start the workers, tell how it went."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from rich.console import Console

from cluster.job import Job, work
from cluster.observer import Observer, OnStatus
from cluster.progress import Display
from cluster.stop import StopSignals
from data_pipeline.config import BadInput, Preempted, Refused
from pretrain import checkpoint
from pretrain.experiment import Experiment
from pretrain.group import Group, check_divides
from pretrain.run_directory import (
    EXPERIMENT,
    Lease,
    create,
    read_experiment,
    record_event,
    refuse_changes,
    write_experiment,
)

Launcher = Literal["auto", "ray", "inline"]
"""`inline`: one worker, in this process, without Ray; `auto`: inline for one worker, else Ray."""


def train(
    experiment: Experiment,
    directory: Path,
    *,
    workers: int = 1,
    launcher: Launcher = "auto",
    on_status: OnStatus | None = None,
    console: Console | None = None,
) -> int:
    """Start a run in a new directory and see it to its end; returns the last step.

    Raises BadInput or Refused, leaving nothing behind, where something is wrong; Preempted where a signal stopped it.
    """
    check(experiment, workers, launcher)
    with _new_run(directory, experiment):
        return _execute(experiment, directory, workers, launcher, (), on_status, console or Console())


def resume(
    directory: Path,
    *,
    workers: int | None = None,
    overrides: tuple[str, ...] = (),
    allowed: tuple[str, ...] = (),
    launcher: Launcher = "auto",
    on_status: OnStatus | None = None,
    console: Console | None = None,
) -> int:
    """Go on with a run from its newest good checkpoint to its end; returns the last step.

    `workers` None: as many as at its last start. Raises Refused, listing them, where overrides change what the run's
    numbers depend on, unless each key is allowed by name.
    """
    saved = read_experiment(directory)
    experiment = read_experiment(directory, overrides)
    refuse_changes(saved.identity(), experiment.identity(), allowed, "experiment")
    workers = workers or last_workers(directory)
    check(experiment, workers, launcher)
    with Lease(directory):
        write_experiment(directory, experiment)
        try:
            return _execute(experiment, directory, workers, launcher, allowed, on_status, console or Console())
        except (BadInput, Refused):
            write_experiment(directory, saved)
            raise


def check(experiment: Experiment, workers: int, launcher: Launcher = "auto") -> None:
    """Raise BadInput for all that can be known to be wrong before anything is written."""
    if launcher == "inline" and workers != 1:
        raise BadInput(f"--launcher inline runs one worker in this process, not {workers}; use --launcher ray")
    check_divides(workers, experiment.batch.micro_batches)
    experiment.check_vocabulary()
    experiment.stream()


def last_workers(directory: Path) -> int:
    """How many workers the run had at its last start, by its events; 1 before the first."""
    path = directory / "events.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []
    return next((row["workers"] for row in reversed(rows) if row["event"] in ("started", "resumed")), 1)


@contextmanager
def _new_run(directory: Path, experiment: Experiment) -> Iterator[None]:
    """Hold a new run directory; what is bad input after all leaves nothing of it."""
    if (directory / EXPERIMENT).exists():
        create(directory, experiment)  # refuses
    made = _make(directory)
    try:
        with Lease(directory):
            create(directory, experiment)
            try:
                yield
            except BadInput:
                if not checkpoint.list_checkpoints(directory):
                    _clear(directory)
                raise
    finally:
        for path in made:  # empty again only where nothing was begun
            if not any(path.iterdir()):
                path.rmdir()


def _make(directory: Path) -> list[Path]:
    """Make the directory and the missing ones above it; returns those made, the innermost first."""
    made = [path for path in (directory, *directory.absolute().parents) if not path.exists()]
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"--run {directory} cannot be written: {error}") from error
    return made


def _clear(directory: Path) -> None:
    """Remove what `create` and a start that failed have put into a run directory; the lease goes by itself."""
    import shutil

    for name in ("logs", "tensorboard", "checkpoints"):
        shutil.rmtree(directory / name, ignore_errors=True)
    for name in (EXPERIMENT, "events.jsonl", "metrics.jsonl"):
        (directory / name).unlink(missing_ok=True)


def _execute(
    experiment: Experiment,
    directory: Path,
    workers: int,
    launcher: Launcher,
    allowed: tuple[str, ...],
    on_status: OnStatus | None,
    console: Console,
) -> int:
    job = Job(directory.absolute(), Path.cwd(), allowed)
    inline = launcher == "inline" or (launcher == "auto" and workers == 1)
    with Display(experiment, directory, console) as display:

        def see(statuses: list) -> None:
            display.update(statuses)
            if on_status is not None:
                on_status(statuses)

        try:
            if inline:
                last_step = _run_here(job, see)
            else:
                from cluster.supervise import Supervisor  # imports Ray

                supervisor = Supervisor(
                    job, workers, device=experiment.engine.device, on_status=see, on_loss=display.say
                )
                last_step = supervisor.run()
        except Preempted:
            record_event(directory, "preempted")
            raise
    display.say(f"finished at step {last_step}: {directory} (checkpoints/, metrics.jsonl, tensorboard/)")
    return last_step


def _run_here(job: Job, on_status: OnStatus) -> int:
    """The run's only worker is this process."""
    observer = Observer(on_step=lambda: on_status([observer.status()]))
    with StopSignals(observer.request_stop):
        return work(job, Group(), observer)
