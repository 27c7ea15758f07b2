"""The life of a run, in order: build, resume, step, log, evaluate, save, stop.

Every worker calls `run`; what is written once is written by the leader. Evaluators are handed in.
"""

import signal
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from data_pipeline.config import GaveUp, Preempted
from pretrain.data_check import DataCheck
from pretrain.experiment import Experiment
from pretrain.group import Group
from pretrain.hardware import peak_flops, resident_bytes
from pretrain.metrics_log import MetricsLog, last_step
from pretrain.replicas import ReplicasDifferError, check_replicas
from pretrain.report import StepReport
from pretrain.restoring import restore_newest
from pretrain.run_directory import record_event
from pretrain.saving import Saving
from pretrain.trainer import Trainer
from pretrain.trouble import InTroubleError, Trouble, window_before

Evaluator = Callable[[Trainer, Experiment], dict[str, float]]
"""Scores the model as it is; called by every worker alike; the numbers are logged under their names."""

STEP_PHASES = ("data", "forward_backward", "update", "reduce")
"""What a step's rate is measured over; a save or an evaluation after a step is told in the next step's seconds."""


@dataclass(frozen=True)
class Watch:
    """What a supervisor sees of a worker while it runs, and how it asks it to stop."""

    step: Callable[[StepReport], None] = lambda _: None
    trainer: Callable[[Trainer], None] = lambda _: None
    moment: Callable[[str, Trainer], None] = lambda *_: None
    """Told of each phase of `Trainer.stopwatch` as it begins, and of each phase of a save as `save: <phase>`, on the
    thread that it happens on. Where tests let faults happen."""
    may_write: Callable[[], None] = lambda: None
    """Raises where another job has taken the run's directory over."""


WATCH_NOTHING = Watch()


def run(
    experiment: Experiment,
    directory: Path,
    group: Group,
    *,
    evaluators: tuple[Evaluator, ...] = (),
    allowed: tuple[str, ...] = (),
    watch: Watch = WATCH_NOTHING,
) -> int:
    """Train until the experiment's last step; returns it.

    Raises Preempted, having saved, when asked to stop (SIGTERM, SIGUSR1, `Trainer.request_stop` or
    `request_stop_at_save` on any worker), and GaveUp where its numbers are wrong and its policy is to stop, or where
    skipping or going back does not help.
    """
    trainer = experiment.trainer(group)
    life = Life(experiment, directory, trainer, evaluators, watch, allowed)
    watch.trainer(trainer)
    trainer.stopwatch.on_phase = lambda phase: watch.moment(phase, trainer)
    with trainer.stopwatch("restore"):
        resumed = restore_newest(trainer, experiment, directory, allowed=allowed) is not None
    redone = max(last_step(directory) - trainer.step, 0) if group.leads else 0
    life.tell(
        "resumed" if resumed or redone else "started",
        step=trainer.step,
        workers=group.world_size,
        device=trainer.engine.device.type,
        redone=redone,
    )
    with StopOnSignals(trainer), life.saving, life.data_check:
        life.saving.prepare()
        if experiment.trouble.rolls_back and not resumed:
            life.saving.save()
        while True:
            try:
                life.train()
                break
            except InTroubleError as error:
                life.leave(error.trouble)
        life.data_check.refuse()
    life.tell("finished", step=trainer.step)
    return trainer.step


class Life:
    """One start of a run."""

    def __init__(
        self,
        experiment: Experiment,
        directory: Path,
        trainer: Trainer,
        evaluators: tuple[Evaluator, ...],
        watch: Watch,
        allowed: tuple[str, ...],
    ) -> None:
        self.experiment, self.directory, self.trainer = experiment, directory, trainer
        self.evaluators, self.watch, self.allowed = evaluators, watch, allowed
        self.saving = Saving(
            trainer,
            experiment,
            directory,
            moment=lambda name: watch.moment(name, trainer),
            may_write=watch.may_write,
        )
        self.data_check = DataCheck(trainer, experiment, directory)
        self.skips = 0
        """Turns in a row that moved nothing."""

    def tell(self, event: str, **details: Any) -> None:
        if self.trainer.engine.group.leads:
            record_event(self.directory, event, **details)

    def train(self) -> None:
        """Step until the last step; raises InTroubleError where a turn's numbers ask for more than to be skipped."""
        trainer, experiment = self.trainer, self.experiment
        with self._log() as log:
            for report in trainer.steps():
                row = metrics_row(report, trainer, experiment)
                row["evaluation"] = self._evaluate(report)
                if log is not None:
                    log.write(row)
                self._count_skips(report)
                self.watch.step(report)
                self._compare_replicas(report)
                stops = self.saving.after_step(report)
                if stops and report.step != experiment.steps:
                    self.data_check.refuse()
                    raise Preempted(
                        f"stopped as asked after step {report.step}; `resume {self.directory}` goes on from there"
                    )

    def leave(self, trouble: Trouble) -> None:
        """Give up, or go back to before the trouble and leave its data out. Collective."""
        policy, trainer = self.experiment.trouble, self.trainer
        self.tell("trouble", **trouble.details())
        if trouble.policy == "stop":
            raise GaveUp(
                f"stopped before it moved anything: {trouble}; events.jsonl names the samples; go on with another "
                "policy, for example trouble.not_finite=skip --allow trouble"
            )
        skipped = [*trainer.skipped, window_before(trouble.draw, policy.window, trainer.skipped)]
        if len(skipped) > policy.max_roll_backs:
            raise GaveUp(
                f"rolled back trouble.max_roll_backs={policy.max_roll_backs} times, and there is trouble again: "
                f"{trouble}"
            )
        self.saving.settle()
        first = skipped[-1][0]
        with trainer.stopwatch("restore"):
            place = restore_newest(trainer, self.experiment, self.directory, allowed=self.allowed, before_draw=first)
        if place is None:
            raise GaveUp(
                f"cannot roll back: no good checkpoint is left from before draw {first} ({trouble}); "
                "a larger checkpoint.keep keeps older ones"
            )
        trainer.skipped = skipped
        self.saving.save(ends=True)  # at once, for a run that dies now must not draw again what is left out
        self.tell("rolled back", to=place.name, skipped=skipped)

    def _count_skips(self, report: StepReport) -> None:
        """Tell of turns that moved nothing; raises GaveUp where there are too many in a row."""
        for turn in report.turns:
            self.skips = self.skips + 1 if turn.trouble else 0
            if turn.trouble is not None:
                self.tell("trouble", **turn.trouble.details())
            if self.skips == self.experiment.trouble.max_skips:
                raise GaveUp(
                    f"gave up at step {report.step}: {self.skips} turns in a row moved nothing, the last one: "
                    f"{turn.trouble}; try a smaller optimizer.learning_rate or optimizer.gradient_clip, from an "
                    "earlier checkpoint"
                )

    def _compare_replicas(self, report: StepReport) -> None:
        """Where that is due and no save follows, which compares them itself."""
        every = self.experiment.supervision.replica_check_every
        if every is None or report.step % every or self.saving.is_due(report):
            return
        try:
            check_replicas(self.trainer.engine, step=report.step)
        except ReplicasDifferError:
            self.saving.settle()  # what is being written was compared before it was copied
            raise

    def _log(self) -> AbstractContextManager[MetricsLog | None]:
        """The leader's; opening it drops the rows that are about to be computed again, if the run is this job's yet."""
        self.saving.check_claim()
        if not self.trainer.engine.group.leads:
            return nullcontext()
        return MetricsLog(self.directory, first_step=self.trainer.step, tensorboard=self.experiment.log.tensorboard)

    def _evaluate(self, report: StepReport) -> dict[str, float]:
        every = self.experiment.evaluate.every
        if every is None or (report.step % every and report.step != self.experiment.steps):
            return {}
        with self.trainer.stopwatch("evaluate"):
            found: dict[str, float] = {}
            for evaluator in self.evaluators:
                found |= evaluator(self.trainer, self.experiment)
            return found


def metrics_row(report: StepReport, trainer: Trainer, experiment: Experiment) -> dict[str, Any]:
    """One line of metrics.jsonl."""
    model, workers = trainer.engine.model, trainer.engine.group.world_size
    seconds = sum(report.seconds[phase] for phase in STEP_PHASES)
    flops = 3.0 * model.flops_per_count() * report.count
    peak = peak_flops(trainer.engine.device.type, experiment.engine.precision, torch.get_num_threads())
    return {
        "step": report.step,
        "loss": report.loss,
        "samples": report.samples,
        "unit": f"{'nats' if hasattr(model, 'log_prob') else 'objective'}/{model.unit}",
        f"{model.unit}s": report.count,
        f"{model.unit}s_per_second": report.count / seconds,
        "seconds": report.seconds,
        "flops_per_second": flops / seconds,
        "flops_utilisation": flops / seconds / (peak * workers) if peak else None,
        "memory_bytes": resident_bytes(),
        "players": {
            turn.player: {
                "loss": turn.loss,
                "gradient_norm": turn.gradient_norm,
                "learning_rate": turn.learning_rate,
                **turn.metrics,
            }
            for turn in report.turns
        },
    }


class StopOnSignals:
    """While inside, SIGTERM and SIGUSR1 ask the trainer to stop after its step; only the main thread can catch them."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.before: dict[int, Any] = {}

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGUSR1):
                self.before[number] = signal.signal(number, lambda *_: self.trainer.request_stop())

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
