"""The supervisor: keeps a run going through lost workers and nodes, and gives up when it gets nowhere."""

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from cluster.job import Job
from cluster.losses import WorkersLostError
from cluster.observer import OnStatus
from cluster.ray_session import Head, HeadLostError, ray_session
from cluster.stop import StopSignals
from cluster.storage import StorageNotSharedError
from cluster.stragglers import Stragglers
from cluster.topology import NoRoomError, Shape, bundle, free_room, room
from cluster.worker_group import WorkerGroup
from data_pipeline.config import BadInput, GaveUp, Preempted
from pretrain.checkpoint import latest
from pretrain.checkpoint.layout import place_of
from pretrain.run_directory import read_events, read_experiment, record_event

GROWTH_LOOK_SECONDS = 5.0
"""Between two looks for nodes that have come back; twice as long after each growth in vain, up to MOST_DOUBLINGS."""
MOST_DOUBLINGS = 8

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
        shape: Shape,
        *,
        address: str | None = None,
        may_shrink: bool = False,
        device: str = "auto",
        on_status: OnStatus = lambda _: None,
        on_loss: OnLoss = lambda _: None,
    ) -> None:
        experiment = read_experiment(job.directory)
        self.settings, self.micro_batches = experiment.supervision, experiment.batch.micro_batches
        self.job, self.shape, self.workers, self.device = job, shape, shape.workers, device
        self.address = address
        """Of the Ray cluster to join; None: one of our own on this machine, or the one that is joined already."""
        self.may_shrink = may_shrink
        """Whether the first start, too, goes on with fewer workers where there is no room for all."""
        self.on_status, self.on_loss = on_status, on_loss
        self.resources: dict[str, float] = {}
        """Of one worker."""
        self.kept_on = ""
        """Why it wants no processors, where it is so."""
        self.size = self.workers
        """How many work now: as many as asked for, or as the cluster still has room for."""
        self.larger = 0
        """As many as there is room for again, once that is seen: the group stops for it with its next checkpoint."""
        self.grown_from = 0
        """The size before a growth, until it has found its room."""
        self.in_vain = 0
        """Growths in a row that found none: others were faster."""
        self.looked = 0.0
        self.has_begun = False
        """Whether a group has ever started."""
        self.failures = Failures(latest(job.directory))

    def run(self) -> int:
        """Train to the end of the run; returns the last step.

        Raises Preempted once the run has saved because of a signal; GaveUp after `supervision.max_failures` failures
        in a row without getting further, where Ray's head is gone, or where no node is left; BadInput where there is
        no room from the start; and whatever SegueError a worker raised.
        """
        with StopSignals() as stop, ray_session(self.workers, self.address):
            stop.install()  # Ray has taken SIGTERM
            head = Head()
            waits = self.may_shrink or self.settings.wait_minutes > 0
            device = device_before(self.job.directory, self.device) if waits else self.device
            if device != self.device:
                self.kept_on = "; it ran on GPUs, and engine.device=auto keeps it there (engine.device=cpu would not)"
            self.resources = bundle(device, self.shape, waits=waits)
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
        """Train with one group of workers; the last step, or None where others are to go on."""
        try:
            with WorkerGroup(
                self.job,
                self.size,
                resources=self.resources,
                shape=self.shape,
                hang_seconds=self.settings.hang_minutes * 60.0,
                wait_seconds=0.0 if self.grown_from else self.settings.wait_minutes * 60.0,
                head=head,
                stopped=lambda: stop.asked,
            ) as group:
                self.has_begun = True
                if self.grown_from:
                    self.grown_from = self.in_vain = 0
                return self._attend(group, stop)
        except NoRoomError as error:
            if stop.asked:
                return None
            most = self.grown_from or self.size - 1
            if not self.grown_from and self.failures.in_a_row == 0 and not self.may_shrink:
                raise BadInput(
                    f"workers={self.workers}: {error}; use fewer, or wait for room: supervision.wait_minutes=60"
                ) from error
            self._shrink(str(error), head, most=most)
        except StorageNotSharedError as error:
            if not self.has_begun:
                raise
            if self.grown_from:
                self._shrink(str(error), head, most=self.grown_from)
            else:
                self._lose(WorkersLostError([str(error)]), head, most=self.workers)
        except WorkersLostError as lost:
            self._lose(lost, head, most=self.workers)
        except Preempted:
            if not self.larger or stop.asked:
                raise
            self._grow()
        return None

    def _attend(self, group: WorkerGroup, stop: StopSignals) -> int:
        stragglers = Stragglers(self.settings.straggler_factor)
        passed_on = False
        while True:
            if stop.asked and not passed_on:
                group.request_stop()
                passed_on = True
            elif self.size < self.workers and not self.larger:
                self._look_for_nodes(group)
            last_step = group.poll()
            statuses = group.statuses()
            for straggler in stragglers.see(statuses):
                record_event(self.job.directory, "straggler", **asdict(straggler))
            self.on_status(statuses)
            if last_step is not None:
                return last_step

    def _look_for_nodes(self, group: WorkerGroup) -> None:
        """Let the group stop with its next checkpoint where there is free room for more workers."""
        now = time.monotonic()
        if now - self.looked < GROWTH_LOOK_SECONDS * 2 ** min(self.in_vain, MOST_DOUBLINGS):
            return
        self.looked = now
        size = self.shape.size_within(self.micro_batches, min(self.workers, room(self.resources, self.shape)))
        if size > self.size and free_room(self.resources, self.shape) >= size - self.size:
            self.larger = size
            self.on_loss(f"there is room for {size} workers again: they take over with the next checkpoint")
            group.request_stop_at_save()

    def _grow(self) -> None:
        """Go on with the larger size that the group has stopped for."""
        record_event(
            self.job.directory,
            "grows",
            resume_from=self._reached(),
            asked_workers=self.workers,
            next_workers=self.larger,
        )
        self.grown_from, self.size, self.larger = self.size, self.larger, 0

    def _shrink(self, why: str, head: Head, *, most: int) -> None:
        """Go on with as many as there is free room for now, `most` at most; raises GaveUp where there is none."""
        if self.grown_from:
            self.in_vain, self.looked = self.in_vain + 1, time.monotonic()
        self.larger = self.grown_from = 0
        head.wait()
        fits = [free_room(self.resources, self.shape), room(self.resources, self.shape)]  # the latter: to be waited for
        sizes = [self.shape.size_within(self.micro_batches, min(most, there)) for there in fits]
        self.size = sizes[0] or sizes[1]
        record_event(self.job.directory, "no room", message=why, asked_workers=self.workers, next_workers=self.size)
        if self.size == 0:
            raise GaveUp(
                f"{why}; no node of the cluster has room for a worker{self.kept_on}; `resume {self.job.directory}` "
                "tries again once there is one"
            )
        self.on_loss(f"{why}; {self._next()} from {self._reached()}")

    def _lose(self, lost: WorkersLostError, head: Head, *, most: int) -> None:
        """Record the loss and find the next size, `most` at most; raises GaveUp where it is one failure too many."""
        newest = latest(self.job.directory)
        self.failures.add(newest)
        self.larger = self.grown_from = 0
        try:
            head.wait()
            there = room(self.resources, self.shape)
            if self.settings.wait_minutes and most == self.workers:
                there = self.workers  # the next start waits for them
            self.size = self.shape.size_within(self.micro_batches, min(most, there))
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
            raise GaveUp(
                f"{lost}; no node of the cluster has room for a worker{self.kept_on}; {resume} once there is one"
            ) from lost
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


def device_before(directory: Path, device: str) -> str:
    """What "auto" is for a run that waits for nodes or may go on with fewer: "cuda" once it has run on GPUs. Where all
    are gone, it does not go on with processors, for days, with other numbers."""
    ran = [event.get("device") for event in read_events(directory) if event["event"] in ("started", "resumed")]
    return "cuda" if device == "auto" and ran and ran[-1] == "cuda" else device
