"""The supervisor: keeps a run going through lost workers and nodes, and gives up when it gets nowhere."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from cluster.job import Job
from cluster.losses import WorkersLostError
from cluster.observer import OnStatus
from cluster.ray_session import Head, HeadLostError, ray_session
from cluster.stop import StopSignals
from cluster.stragglers import Stragglers
from cluster.topology import NoRoomError, bundle, divisor_within, room
from cluster.worker_group import WorkerGroup
from data_pipeline.config import BadInput, GaveUp, Preempted
from pretrain.checkpoint import latest
from pretrain.checkpoint.layout import place_of
from pretrain.run_directory import read_experiment, record_event

OnLoss = Callable[[str], None]
"""Told in a sentence of workers that were lost and of what comes next."""


class Failures:
    """Failures in a row: counted anew after each checkpoint of a further step than ever before.

    Going back and forth between two checkpoints is no progress.
    """

    def __init__(self, newest: Path | None) -> None:
        self.in_a_row = 0
        self.furthest = step_of(newest)

    def add(self, newest: Path | None) -> None:
        """One more, where this is the checkpoint to go on from."""
        step = step_of(newest)
        self.in_a_row = 1 if step > self.furthest else self.in_a_row + 1
        self.furthest = max(step, self.furthest)


def step_of(newest: Path | None) -> int:
    """Of a checkpoint; 0 where there is none."""
    place = place_of(newest.name) if newest else None
    return place.step if place else 0


class Supervisor:
    """Starts the workers of a run, as often as it takes; `supervision` in the run's experiment has the settings."""

    def __init__(
        self,
        job: Job,
        workers: int,
        *,
        device: str = "auto",
        on_status: OnStatus = lambda _: None,
        on_loss: OnLoss = lambda _: None,
    ) -> None:
        experiment = read_experiment(job.directory)
        self.settings, self.micro_batches = experiment.supervision, experiment.batch.micro_batches
        self.job, self.workers, self.device = job, workers, device
        self.on_status, self.on_loss = on_status, on_loss
        self.resources: dict[str, float] = {}
        """Of one worker."""
        self.size = workers
        """How many work now: as many as asked for, or as the cluster still has room for."""
        self.failures = Failures(latest(job.directory))

    def run(self) -> int:
        """Train to the end of the run; returns the last step.

        Raises Preempted once the run has saved because of a signal; GaveUp after `supervision.max_failures` failures
        in a row without getting further, where Ray's head is gone, or where no node is left; BadInput where there is
        no room from the start; and whatever SegueError a worker raised.
        """
        with StopSignals() as stop, ray_session(self.workers):
            stop.install()  # Ray has taken SIGTERM
            head = Head()
            self.resources = bundle(self.device, self.workers)
            try:
                while not stop.asked:
                    last_step = self._start(head, stop)
                    if last_step is not None:
                        return last_step
            except HeadLostError as lost:
                raise GaveUp(f"{lost}; `resume {self.job.directory}` goes on from {self._reached()}") from lost
        raise Preempted(
            f"stopped as asked while no worker ran; `resume {self.job.directory}` goes on from {self._reached()}"
        )

    def _start(self, head: Head, stop: StopSignals) -> int | None:
        """Train with one group of workers; the last step, or None where they were lost and others may go on."""
        hang_seconds = self.settings.hang_minutes * 60.0
        try:
            with WorkerGroup(
                self.job, self.size, resources=self.resources, hang_seconds=hang_seconds, head=head
            ) as group:
                return self._attend(group, stop)
        except NoRoomError as error:
            if self.failures.in_a_row == 0:
                raise BadInput(f"workers={self.workers}: {error}; use fewer, or wait until there is room") from error
            self._lose(WorkersLostError([str(error)]), head, most=self.size - 1)
        except WorkersLostError as lost:
            self._lose(lost, head, most=self.workers)
        return None

    def _attend(self, group: WorkerGroup, stop: StopSignals) -> int:
        stragglers = Stragglers(self.settings.straggler_factor)
        passed_on = False
        while True:
            if stop.asked and not passed_on:
                group.request_stop()
                passed_on = True
            last_step = group.poll()
            statuses = group.statuses()
            for straggler in stragglers.see(statuses):
                record_event(self.job.directory, "straggler", **asdict(straggler))
            self.on_status(statuses)
            if last_step is not None:
                return last_step

    def _lose(self, lost: WorkersLostError, head: Head, *, most: int) -> None:
        """Record the loss and find the next size, `most` at most; raises GaveUp where it is one loss too many."""
        newest = latest(self.job.directory)
        self.failures.add(newest)
        try:
            head.wait()
            self.size = divisor_within(self.micro_batches, min(most, room(self.resources)))
        finally:
            record_event(
                self.job.directory,
                "lost",
                workers=lost.lines,
                losses=[worker.record() for worker in lost.lost],
                failures=self.failures.in_a_row,
                resume_from=newest.name if newest else None,
                asked_workers=self.workers,
                next_workers=self.size,
            )
        resume = f"`resume {self.job.directory}` tries again"
        if self.size == 0:
            raise GaveUp(f"{lost}; no node of the cluster has room for a worker; {resume} once there is one") from lost
        if self.failures.in_a_row >= self.settings.max_failures:
            raise GaveUp(
                f"gave up after {self.failures.in_a_row} failures in a row without a checkpoint further on "
                f"(supervision.max_failures); the last one: {lost}; the workers' output is in "
                f"{self.job.directory / 'logs'}; {resume}"
            ) from lost
        self.on_loss(f"{lost}; the others were ended; {self._next()} from {self._reached()}")

    def _next(self) -> str:
        if self.size == self.workers:
            return f"starting all {self.workers} again"
        return (
            f"there is no room for all {self.workers} any more: going on with {self.size}, "
            f"which shares batch.micro_batches={self.micro_batches} equally,"
        )

    def _reached(self) -> str:
        newest = latest(self.job.directory)
        return newest.name if newest else "the beginning"
