"""The supervisor: keeps a run going through lost workers, and gives up when it gets nowhere."""

from collections.abc import Callable
from pathlib import Path

from cluster.job import Job
from cluster.observer import OnStatus
from cluster.stop import StopSignals
from cluster.topology import ray_session
from cluster.worker_group import WorkerGroup, WorkersLostError
from data_pipeline.config import GaveUp, Preempted
from pretrain.checkpoint import latest
from pretrain.run_directory import record_event

MAX_FAILURES = 3
"""In a row, without a new checkpoint between them."""

OnLoss = Callable[[str], None]
"""Told in a sentence of workers that were lost and of what comes next."""


class Supervisor:
    """Starts the workers of a run, as often as it takes."""

    def __init__(
        self,
        job: Job,
        workers: int,
        *,
        device: str = "auto",
        on_status: OnStatus = lambda _: None,
        on_loss: OnLoss = lambda _: None,
        max_failures: int = MAX_FAILURES,
    ) -> None:
        self.job, self.workers, self.device = job, workers, device
        self.on_status, self.on_loss, self.max_failures = on_status, on_loss, max_failures
        self.failures = 0
        self.reached: Path | None = None
        """The newest checkpoint at the last failure."""

    def run(self) -> int:
        """Train to the end of the run; returns the last step.

        Raises Preempted once the run has saved because of a signal, GaveUp after `max_failures` failures in a row
        without a new checkpoint, and whatever SegueError a worker raised.
        """
        self.reached = latest(self.job.directory)
        with StopSignals() as stop, ray_session(self.workers):
            stop.install()  # Ray has taken SIGTERM
            while not stop.asked:
                try:
                    with WorkerGroup(self.job, self.workers, device=self.device) as group:
                        return self._attend(group, stop)
                except WorkersLostError as lost:
                    self._lose(lost)
        raise Preempted(
            f"stopped as asked while no worker ran; `resume {self.job.directory}` goes on from "
            + (self.reached.name if self.reached else "the beginning")
        )

    def _attend(self, group: WorkerGroup, stop: StopSignals) -> int:
        passed_on = False
        while True:
            if stop.asked and not passed_on:
                group.request_stop()
                passed_on = True
            last_step = group.poll()
            self.on_status(group.statuses())
            if last_step is not None:
                return last_step

    def _lose(self, lost: WorkersLostError) -> None:
        """Record the loss; raises GaveUp where it is one too many."""
        newest = latest(self.job.directory)
        self.failures = self.failures + 1 if newest == self.reached else 1
        self.reached = newest
        where = newest.name if newest else "the beginning"
        record_event(
            self.job.directory,
            "lost",
            workers=lost.lines,
            failures=self.failures,
            resume_from=where if newest else None,
        )
        if self.failures >= self.max_failures:
            raise GaveUp(
                f"gave up after {self.failures} failures in a row without a new checkpoint; the last one: {lost}; "
                f"the workers' output is in {self.job.directory / 'logs'}; `resume {self.job.directory}` tries again"
            ) from lost
        self.on_loss(f"{lost}; the others were ended; starting all {self.workers} again from {where}")
