"""Training from the driver's side: check everything, claim the run directory, start the workers, tell how it went."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from rich.console import Console

from cluster.job import Injector, Job, work
from cluster.jobs.record import JobRecord
from cluster.observer import Observer, OnStatus, WorkerStatus
from cluster.plan_tables import show_plan
from cluster.progress import Display
from cluster.sampling import keep_tokenizer
from cluster.stop import StopSignals
from cluster.tables import bytes_text
from cluster.topology import ANYWHERE, Shape
from cluster.watchdog import Watchdog
from data_pipeline.config import BadInput, Corrupt, GaveUp, Preempted, Refused
from data_pipeline.data import DataConfig
from data_pipeline.shard_stamps import RECORD, ShardStamps
from evals.held_out import open_split
from evals.in_training import check_tasks
from evals.pairs import open_pairs
from evals.vectors import open_vectors
from pretrain import checkpoint, config
from pretrain.experiment import Experiment
from pretrain.group import Group, check_divides
from pretrain.lease import Claim, Lease
from pretrain.plan import plan
from pretrain.run_directory import (
    EXPERIMENT,
    TOKENIZER,
    check_allowed,
    check_given,
    check_place,
    create,
    keep_shard_stamps,
    read_events,
    read_experiment,
    record_damaged_shards,
    record_event,
    refuse_changed_shards,
    refuse_changes,
    write_experiment,
)

Launcher = Literal["auto", "ray", "inline"]
"""`inline`: one worker, in this process, without Ray; `auto`: inline for one worker, else Ray."""

ENDS: dict[type[BaseException], str] = {Preempted: "preempted", GaveUp: "gave_up", KeyboardInterrupt: "interrupted"}
"""The events of a run that ended before its last step."""


@dataclass(frozen=True)
class Start:
    """How a run is computed and watched this time."""

    shape: Shape = ANYWHERE
    launcher: Launcher = "auto"
    address: str | None = None
    """Of the Ray cluster to join; None: this machine alone."""
    may_shrink: bool = False
    """Whether it goes on with fewer workers where there is no room for all."""
    record: JobRecord | None = None
    """Of the job that this start is, for the run's events."""
    on_status: OnStatus = lambda _: None
    console: Console = field(default_factory=Console)
    injector: Injector | None = None

    @property
    def workers(self) -> int:
        return self.shape.workers

    @property
    def inline(self) -> bool:
        alone = self.launcher == "auto" and self.workers == 1 and self.address is None and not self.shape.accelerator
        return self.launcher == "inline" or alone


def train(
    experiment: Experiment,
    directory: Path,
    *,
    workers: int | Shape = 1,
    launcher: Launcher = "auto",
    address: str | None = None,
    on_status: OnStatus = lambda _: None,
    console: Console | None = None,
    injector: Injector | None = None,
) -> int:
    """Start a run in a new directory and see it to its end; returns the last step.

    `address` is that of the Ray cluster whose nodes compute it. Raises BadInput or Refused, leaving nothing behind,
    where something is wrong; Preempted where a signal stopped it; GaveUp where it failed again and again.
    """
    start = Start(
        as_shape(workers), launcher, address, on_status=on_status, console=console or Console(), injector=injector
    )
    return _begin(experiment, directory, start)


def _begin(experiment: Experiment, directory: Path, start: Start) -> int:
    """In a new directory."""
    if (directory / EXPERIMENT).exists():
        create(directory, experiment)  # refuses
    check_place(directory)
    check(experiment, start.shape, start.launcher, start.address)
    check_disk(experiment, directory)
    with _new_run(directory, experiment) as claim:
        return _execute(experiment, directory, claim, start)


def resume(
    directory: Path,
    *,
    workers: int | Shape | None = None,
    overrides: tuple[str, ...] = (),
    allowed: tuple[str, ...] = (),
    launcher: Launcher = "auto",
    address: str | None = None,
    on_status: OnStatus = lambda _: None,
    console: Console | None = None,
    injector: Injector | None = None,
    record: JobRecord | None = None,
) -> int:
    """Go on with a run from its newest good checkpoint to its end; returns the last step.

    `workers` None: as many as at its last start. Raises Refused, listing them, where overrides change what the run's
    numbers depend on, unless each key is allowed by name.
    """
    saved, experiment = read_experiment(directory), read_experiment(directory, overrides)
    shape = as_shape(last_workers(directory) if workers is None else workers)
    start = Start(
        shape,
        launcher,
        address,
        record=record,
        on_status=on_status,
        console=console or Console(),
        injector=injector,
    )
    return _go_on(directory, saved, experiment, start, allowed, changed=bool(overrides))


def carry_on(
    experiment: Experiment,
    directory: Path,
    *,
    workers: int | Shape = 1,
    launcher: Launcher = "auto",
    address: str | None = None,
    record: JobRecord | None = None,
    console: Console | None = None,
) -> int:
    """Start the run, or go on with it where it is there: what a job does that may be submitted, or requeued, again.

    Where the cluster has become smaller since the run began, it goes on with as many workers as there is room for.
    Raises Refused where the run that is there is of another experiment.
    """
    start = Start(as_shape(workers), launcher, address, record=record, console=console or Console())
    if not (directory / EXPERIMENT).exists():
        return _begin(experiment, directory, start)
    start = replace(start, may_shrink=True)
    return _go_on(directory, read_experiment(directory), experiment, start, (), changed=False)


def _go_on(
    directory: Path,
    saved: Experiment,
    experiment: Experiment,
    start: Start,
    allowed: tuple[str, ...],
    *,
    changed: bool,
) -> int:
    """From the newest good checkpoint, with the experiment as it is to be now; `changed` by this command."""
    _check_allowed(allowed, directory, saved, experiment)
    refuse_changes(saved.identity(), experiment.identity(), allowed, "experiment")
    check_given(experiment, directory)
    refuse_changed_shards(experiment, directory, allowed)
    check(experiment, start.shape, start.launcher, start.address)
    with Lease(directory) as lease:
        if is_finished(directory, experiment):
            left_out = " (the changes given now are left out)" if changed else ""
            line = f"{directory} is finished already, at step {experiment.steps}{left_out}; to go on, give it more: "
            start.console.print(f"{line}resume {directory} steps=... --allow steps", soft_wrap=True, highlight=False)
            return experiment.steps
        check_disk(experiment, directory)
        before, reached = checkpoint.latest(directory), _reached(directory)
        if reached > experiment.steps:
            raise BadInput(
                f"steps={experiment.steps}: the run has reached step {reached} already; give it as many or more"
            )
        write_experiment(directory, experiment)
        keep_shard_stamps(experiment, directory)
        try:
            return _execute(experiment, directory, lease.claim, start, allowed)
        except (BadInput, Refused, Corrupt):
            if checkpoint.latest(directory) == before:  # else the newest one is of the changed experiment
                write_experiment(directory, saved)
            raise


def as_shape(workers: int | Shape) -> Shape:
    """A number of workers, wherever there is room for them."""
    return workers if isinstance(workers, Shape) else Shape(workers)


def _check_allowed(allowed: tuple[str, ...], directory: Path, saved: Experiment, experiment: Experiment) -> None:
    """Raise BadInput for a name that no check would ever ask for: it is misspelt."""
    stamps = ShardStamps.read(directory)
    hashes = stamps.hashes() if stamps is not None else {}
    newest = checkpoint.latest(directory)
    data = checkpoint.Manifest.read(newest).data_fingerprint if newest is not None else {}
    check_allowed(allowed, {"probe": None}, saved.identity(), experiment.identity(), data, hashes)


def _reached(directory: Path) -> int:
    """The step of the run's newest checkpoint."""
    newest = checkpoint.latest(directory)
    return checkpoint.Manifest.read(newest).step if newest else 0


def is_finished(directory: Path, experiment: Experiment) -> bool:
    """Whether the run has ended at the experiment's last step, and the checkpoint of that step is good."""
    newest = checkpoint.latest(directory)
    ended = [event["event"] for event in read_events(directory)][-1:] == ["finished"]
    if newest is None or not ended or checkpoint.Manifest.read(newest).step != experiment.steps:
        return False
    good = next(checkpoint.good_checkpoints(directory, log=lambda _: None), None)
    return good is not None and good.step == experiment.steps


def check(experiment: Experiment, shape: Shape, launcher: Launcher = "auto", address: str | None = None) -> None:
    """Raise BadInput for all that can be known to be wrong before anything is written."""
    if launcher == "inline" and (shape.workers != 1 or address is not None):
        more = f"not {shape.workers}" if address is None else f"and none on the cluster at {address}"
        raise BadInput(f"--launcher inline runs one worker in this process, {more}; use --launcher ray")
    check_divides(shape.workers, experiment.batch.micro_batches)
    experiment.check_data()
    experiment.stream()
    if experiment.evaluate.every is not None:
        openers: dict[str, Callable[[DataConfig, str], object]] = {"vectors": open_vectors, "pairs": open_pairs}
        openers.get(experiment.model.reads, open_split)(experiment.data, experiment.evaluate.split)
        check_tasks(experiment)


def check_disk(experiment: Experiment, directory: Path) -> None:
    """Raise BadInput unless all checkpoints that the run will keep fit on its disk."""
    there = sum(info.bytes for info in checkpoint.list_checkpoints(directory))
    needed, most = plan(experiment, ()).disk_bytes - there, experiment.checkpoint.most(experiment.steps)
    existing = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise BadInput(
            f"run {directory}: {most} checkpoints need {bytes_text(needed)}{' more' if there else ''}, where "
            f"{bytes_text(free)} are free; free some, choose another disk, or set a smaller checkpoint.keep"
        )


def dry_run(
    experiment: Experiment, *, workers: int | Shape, launcher: Launcher, address: str | None = None, console: Console
) -> None:
    """Check all that `train` would check, and print what it would do and need; nothing is written."""
    shape = as_shape(workers)
    check(experiment, shape, launcher, address)
    console.print(config.dump(experiment), highlight=False, markup=False, soft_wrap=True)
    show_plan(plan(experiment, [shape.workers]), console)


def last_workers(directory: Path) -> int:
    """How many workers the run was asked for at its last start, by its events; 1 before the first.

    After a loss of nodes it may have gone on with fewer: that is no wish for fewer.
    """
    asked, change = 1, None
    for event in read_events(directory):
        if event["event"] in ("started", "resumed"):
            resized = change is not None and change["next_workers"] == event["workers"]
            asked = change["asked_workers"] if change is not None and resized else event["workers"]
        if event["event"] in ("lost", "grows", "no room"):
            change = event
        elif event["event"] in ("started", "resumed", "submitted", *ENDS.values()):  # no warning and the like
            change = None
    return int(asked)


@contextmanager
def _new_run(directory: Path, experiment: Experiment) -> Iterator[Claim]:
    """Hold a new run directory; what is bad input after all leaves nothing of it."""
    made = _make(directory)
    try:
        with Lease(directory) as lease:
            create(directory, experiment)
            try:
                keep_tokenizer(experiment, directory)
                keep_shard_stamps(experiment, directory)
                yield lease.claim
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
    for name in ("logs", "tensorboard", "checkpoints", TOKENIZER):
        shutil.rmtree(directory / name, ignore_errors=True)
    for name in (EXPERIMENT, "events.jsonl", "metrics.jsonl", RECORD):
        (directory / name).unlink(missing_ok=True)


def _execute(experiment: Experiment, directory: Path, claim: Claim, start: Start, allowed: tuple[str, ...] = ()) -> int:
    """Run the workers until the run ends, stops as asked, or fails; returns the last step."""
    job = Job(directory.absolute(), Path.cwd(), allowed, start.injector, experiment, claim)
    if start.record is not None:
        start.record.keep(directory)
    with Display(experiment, directory, start.console) as display:
        record_damaged_shards(experiment, directory)

        def see(statuses: list[WorkerStatus]) -> None:
            display.update(statuses)
            start.on_status(statuses)

        try:
            if start.inline:
                last_step = _run_here(job, see)
            else:
                from cluster.supervise import Supervisor  # imports Ray

                display.say(f"starting {start.workers} workers with Ray, which takes some seconds")
                last_step = Supervisor(
                    job,
                    start.shape,
                    address=start.address,
                    may_shrink=start.may_shrink,
                    device=experiment.engine.device,
                    on_status=see,
                    on_loss=display.say,
                ).run()
        except (Preempted, GaveUp, KeyboardInterrupt) as end:
            record_event(directory, ENDS[type(end)], step=_reached(directory))
            raise
    parts = [part for part in ("checkpoints/", "metrics.jsonl", "tensorboard/") if (directory / part).exists()]
    display.say(f"finished at step {last_step}: {directory} ({', '.join(parts)})")
    return last_step


def _run_here(job: Job, on_status: OnStatus) -> int:
    """The run's only worker is this process."""
    observer = Observer(on_step=lambda: on_status([observer.status()]))
    assert job.experiment is not None
    limit = job.experiment.supervision.hang_minutes * 60.0
    with StopSignals(observer.request_stop), Watchdog(observer, job.directory, limit=limit):
        return work(job, Group(), observer)
