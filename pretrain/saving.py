"""When a run saves, what belongs to a checkpoint of it, and what happens when saving fails."""

import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from data_pipeline.batch import Batch
from data_pipeline.config import Refused, SegueError
from data_pipeline.redaction import redact_values
from pretrain import checkpoint
from pretrain.checkpoint.piece import Piece
from pretrain.experiment import Experiment
from pretrain.replicas import check_replicas
from pretrain.report import StepReport
from pretrain.run_directory import record_event
from pretrain.trainer import PROBE, Trainer

T = TypeVar("T")


def save(trainer: Trainer, experiment: Experiment, directory: Path) -> Path:
    """Write a checkpoint of this moment and wait for it; collective."""
    with Saving(trainer, experiment, directory) as saving:
        saving.save()
        path = saving.settle(must=True)
    assert path is not None
    return path


class Saving:
    """The checkpoints of one start of a run; leaving the context waits for the one in flight.

    `moment` is told of each phase of a save, on the thread that it happens on; `may_write` raises where this job has
    lost the run's directory to another one.
    """

    def __init__(
        self,
        trainer: Trainer,
        experiment: Experiment,
        directory: Path,
        *,
        moment: Callable[[str], None] = lambda _: None,
        may_write: Callable[[], None] = lambda: None,
    ) -> None:
        self.trainer, self.experiment, self.directory = trainer, experiment, directory
        self.config, self.moment, self.may_write = experiment.checkpoint, moment, may_write
        self.saver = checkpoint.Saver(
            directory,
            trainer.engine.group,
            keep=self.config.keep,
            background=self.config.background,
            timeout_seconds=60 * self.config.timeout_minutes,
            phase=self._see_phase,
            warn=self._warn,
        )
        self.saved_at = time.monotonic()
        self.again = False
        """Whether a save has failed and is tried once more, after the next step; the same on every worker."""
        self.is_second = False
        """Whether the save in flight is such a try."""
        self.ends_with_next = False
        """Whether the run is to stop with its next checkpoint; the same on every worker."""
        trainer.before_change = self._before_change

    def __enter__(self) -> "Saving":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.saver.__exit__(kind, error, trace)

    def prepare(self) -> None:
        """Before the first step: have the memory made that saves copy the state to."""
        self.saver.prepare(state_pieces(self.trainer, self.trainer.stream.micro_batch(0, 0)))

    def is_due(self, report: StepReport) -> bool:
        """Whether a checkpoint belongs after this step, for itself and not for one that failed."""
        return report.stop or "save" in report.requests or self._is_permanent(report.step)

    def after_step(self, report: StepReport) -> bool:
        """Save where it is due, or where the save before has failed and the run goes on; collective.

        Returns whether the run stops here, as it was asked to. Raises NotSaved where a save has failed and the run is
        to stop for it.
        """
        if "join save" in report.requests:
            self.settle()
        self.ends_with_next |= "stop at save" in report.requests
        due = self.is_due(report)
        if due or self.again:
            self.is_second = not due
            ends = report.stop or report.step == self.experiment.steps
            self.save(temporary=not self._is_permanent(report.step), ends=ends)
        self._ask()
        if report.stop or not (due and self.ends_with_next):
            return report.stop
        return self.settle() is not None  # a save that failed is tried again, as any other: the run goes on until then

    def _is_permanent(self, step: int) -> bool:
        return step == self.experiment.steps or step % self.config.every == 0

    def save(self, *, temporary: bool = False, ends: bool = False) -> None:
        """Save this moment; the writing goes on in the background, but where the run `ends` with it. Collective.

        Raises ReplicasDifferError, for what the workers do not agree on is not saved.
        """
        with self.trainer.stopwatch("save"):
            self._tolerate(self.saver.join, must=False, later=ends)
            check_replicas(self.trainer.engine, step=self.trainer.step)
            self.again = False
            self._tolerate(lambda: self._start(temporary=temporary), must=ends)
            self.saved_at = time.monotonic()
            if ends:
                self._tolerate(self.saver.join, must=True)

    def settle(self, *, must: bool = False) -> Path | None:
        """Wait for the save in flight; its directory. Collective.

        Raises NotSaved where it failed and the policy is to stop for that, or it `must` succeed.
        """
        with self.trainer.stopwatch("save"):
            return self._tolerate(self.saver.join, must=must)

    def _before_change(self) -> None:
        """Nothing of what is saved may change while it is copied."""
        if self.saver.copying:
            with self.trainer.stopwatch("save"):
                self.saver.wait_for_copy()

    def check_claim(self) -> None:
        """Raise Refused on every worker where the run is another job's by now, whose files are not to be touched, and
        NotSaved where that cannot be found out."""
        group = self.trainer.engine.group
        lost: SegueError | None = None
        if group.leads:
            try:
                self.may_write()
            except Refused as error:
                lost = error
            except OSError as error:
                lost = checkpoint.NotSaved(f"checkpoint not saved: the run's lease cannot be read: {error}")
        lost = group.tell(lost)
        if lost is not None:
            raise lost

    def _start(self, *, temporary: bool) -> None:
        self.check_claim()
        trainer, batch = self.trainer, self.trainer.stream.micro_batch(0, 0)
        self.saver.start(
            step=trainer.step,
            pieces=[_still(piece) for piece in state_pieces(trainer, batch)],
            description=self._description(trainer.probe(batch)),
            temporary=temporary,
        )

    def _ask(self) -> None:
        """Let all workers hear, at the end of the next step, what only this one knows."""
        if self.saver.failed:
            self.trainer.request("join save")
        minutes = self.config.minutes
        if minutes is not None and self.trainer.engine.group.leads and time.monotonic() - self.saved_at > 60 * minutes:
            self.trainer.request("save")

    def _tolerate(self, work: Callable[[], T], *, must: bool, later: bool = False) -> T | None:
        """Do it; a failure is recorded, and raised where it `must` succeed or the policy says so.

        `later`: not even then, for another save is about to be tried.
        """
        try:
            return work()
        except checkpoint.NotSaved as error:
            if self.trainer.engine.group.leads:
                record_event(self.directory, "not saved", message=str(error), step=self.trainer.step)
            if must or (self.config.on_failure == "stop" and not later):
                raise
            self.again = not self.is_second
            return None

    def _description(self, probe: dict[str, float]) -> checkpoint.Description:
        trainer = self.trainer
        return checkpoint.Description(
            counters=trainer.counters(),
            experiment=redact_values(self.experiment.model_dump(mode="json")),
            data_fingerprint=trainer.stream.fingerprint(),
            probe={"nats": dict(probe)},
            skipped=list(trainer.skipped),
            losses=trainer.judge.state(),
        )

    def _warn(self, message: str) -> None:
        record_event(self.directory, "warning", message=message)

    def _see_phase(self, phase: checkpoint.Phase) -> None:
        if phase == "manifest written":
            self.may_write()
        self.moment(f"save: {phase}")


def state_pieces(trainer: Trainer, probe: Batch) -> list[Piece]:
    """All that this worker saves."""
    return trainer.pieces() + (probe_pieces(probe) if trainer.engine.group.leads else [])


def _still(piece: Piece) -> Piece:
    """What changes only by an update; buffers may change in a forward pass, so they are copied at once."""
    return replace(piece, tensor=piece.tensor.clone()) if piece.name.startswith("buffers/") else piece


def probe_pieces(batch: Batch) -> list[Piece]:
    """The stored micro-batch."""
    named = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return [Piece(f"{PROBE}/{name}", tuple(value.shape), 0, value.reshape(-1)) for name, value in named.items()]
