"""The life of a run, in order: build, resume, step, log, evaluate, save, stop.

Every worker calls `run`; what is written once is written by the leader. Evaluators are handed in.
"""

import math
import signal
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from data_pipeline.config import Corrupt, GaveUp, Preempted
from pretrain import checkpoint, config
from pretrain.experiment import Experiment
from pretrain.group import Group
from pretrain.hardware import peak_flops, resident_bytes
from pretrain.metrics_log import MetricsLog
from pretrain.report import StepReport
from pretrain.run_directory import record_event, refuse_changes
from pretrain.trainer import Trainer

Evaluator = Callable[[Trainer, Experiment], dict[str, float]]
"""Scores the model as it is; called by every worker alike; the numbers are logged under their names."""

STEP_PHASES = ("data", "forward_backward", "update", "reduce")
"""What a step's rate is measured over; a save or an evaluation after a step is told in the next step's seconds."""

MAX_SKIPPED = 10
"""Steps in a row in which nothing could be moved, after which a run gives up."""

PROBE_TOLERANCE = {"float32": 1e-4, "bfloat16": 3e-2}
"""Relative: the same weights on other hardware or another ZeRO stage round differently; wrong weights do worse."""


@dataclass(frozen=True)
class Watch:
    """What a supervisor sees of a worker while it runs, and how it asks it to stop."""

    step: Callable[[StepReport], None] = lambda _: None
    trainer: Callable[[Trainer], None] = lambda _: None
    moment: Callable[[str, Trainer], None] = lambda *_: None
    """Told of each phase of `Trainer.stopwatch` as it begins, and of each phase of a save as `save: <phase>`, on the
    thread that it happens on. Where tests let faults happen."""


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

    Raises Preempted, having saved, when asked to stop (SIGTERM, SIGUSR1 or `Trainer.request_stop` on any worker).
    """
    trainer = experiment.trainer(group)
    watch.trainer(trainer)
    trainer.stopwatch.on_phase = lambda phase: watch.moment(phase, trainer)
    with trainer.stopwatch("restore"):
        resumed = _resume(trainer, experiment, directory, allowed)
    if group.leads:
        record_event(directory, "resumed" if resumed else "started", step=trainer.step, workers=group.world_size)
    skipped = 0
    with _log(trainer, experiment, directory) as log, StopOnSignals(trainer):
        for report in trainer.steps():
            row = _row(report, trainer, experiment)
            row["evaluation"] = _evaluate(report, trainer, experiment, evaluators)
            if log is not None:
                log.write(row)
                _record_skipped(report, directory)
            skipped = skipped + 1 if _moved_nothing(report) else 0
            if skipped == MAX_SKIPPED:
                raise GaveUp(
                    f"gave up at step {report.step}: for {MAX_SKIPPED} steps no gradient was finite; "
                    "try a smaller optimizer.learning_rate or optimizer.gradient_clip, from an earlier checkpoint"
                )
            watch.step(report)
            last = report.step == experiment.steps
            if last or report.stop or report.step % experiment.checkpoint.every == 0:
                with trainer.stopwatch("save"):
                    save(trainer, experiment, directory)
            if report.stop and not last:
                raise Preempted(f"stopped as asked after step {report.step}; `resume {directory}` goes on from there")
    if group.leads:
        record_event(directory, "finished", step=trainer.step)
    return trainer.step


def _moved_nothing(report: StepReport) -> bool:
    return not any(math.isfinite(turn.gradient_norm) for turn in report.turns)


def _record_skipped(report: StepReport, directory: Path) -> None:
    """Turns whose gradient was not finite moved nothing: say so."""
    for turn in report.turns:
        if not math.isfinite(turn.gradient_norm):
            record_event(
                directory, "skipped", step=report.step, player=turn.player, gradient_norm=str(turn.gradient_norm)
            )


def save(trainer: Trainer, experiment: Experiment, directory: Path) -> Path:
    """Write a checkpoint of this moment; collective."""
    probe = trainer.probe()
    return checkpoint.save(
        directory,
        step=trainer.step,
        pieces=trainer.pieces(),
        description=checkpoint.Description(
            counters=trainer.counters(),
            experiment=experiment.model_dump(mode="json"),
            data_fingerprint=trainer.stream.fingerprint(),
            probe={"nats": probe},
        ),
        group=trainer.engine.group,
        keep=experiment.checkpoint.keep,
    )


def _resume(trainer: Trainer, experiment: Experiment, directory: Path, allowed: tuple[str, ...]) -> bool:
    """Restore the newest good checkpoint, if there is any; refuses one of another experiment or other data."""
    group = trainer.engine.group

    def log(line: str) -> None:
        if group.leads:
            record_event(directory, "fallback", message=line)

    for reader in checkpoint.good_checkpoints(directory, log=log, group=group):
        manifest = reader.manifest
        saved = config.parse(Experiment, dict(manifest.experiment), source=str(reader.path))
        refuse_changes(saved.identity(), experiment.identity(), allowed, "experiment")
        refuse_changes(manifest.data_fingerprint, trainer.stream.fingerprint(), allowed, "data")
        trainer.restore(reader, manifest.counters)
        expected, found = manifest.probe["nats"], trainer.probe()
        assert isinstance(expected, float)
        tolerance = PROBE_TOLERANCE[experiment.engine.precision] * max(abs(expected), 1.0)
        if "probe" in allowed or abs(found - expected) <= tolerance:
            return True
        log(f"{reader.path.name} scores its probe at {found:.6g} nats, it was saved at {expected:.6g}; going back")
    if checkpoint.list_checkpoints(directory):
        raise Corrupt(
            f"{directory}: none of its checkpoints is good; events.jsonl says what is wrong with each (on hardware "
            "that rounds otherwise, --allow probe takes one whose hashes are right)"
        )
    return False


def _log(trainer: Trainer, experiment: Experiment, directory: Path) -> AbstractContextManager[MetricsLog | None]:
    """The leader's; opening it drops the rows that are about to be computed again."""
    if not trainer.engine.group.leads:
        return nullcontext()
    return MetricsLog(directory, first_step=trainer.step, tensorboard=experiment.log.tensorboard)


def _evaluate(
    report: StepReport, trainer: Trainer, experiment: Experiment, evaluators: tuple[Evaluator, ...]
) -> dict[str, float]:
    every = experiment.evaluate.every
    if every is None or (report.step % every and report.step != experiment.steps):
        return {}
    with trainer.stopwatch("evaluate"):
        found: dict[str, float] = {}
        for evaluator in evaluators:
            found |= evaluator(trainer, experiment)
        return found


def _row(report: StepReport, trainer: Trainer, experiment: Experiment) -> dict[str, Any]:
    """One line of metrics.jsonl."""
    model, workers = trainer.engine.model, trainer.engine.group.world_size
    seconds = sum(report.seconds[phase] for phase in STEP_PHASES)
    flops = 3.0 * model.flops_per_count() * report.count
    peak = peak_flops(trainer.engine.device.type, experiment.engine.precision, torch.get_num_threads())
    return {
        "step": report.step,
        "loss": report.loss,
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
