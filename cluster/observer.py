"""What a running worker tells of itself, and the request to stop, which reaches its trainer once there is one."""

import os
from collections.abc import Callable
from dataclasses import dataclass

from pretrain.report import StepReport
from pretrain.run import Watch
from pretrain.trainer import Trainer


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """One worker at one moment."""

    rank: int
    pid: int
    node: str
    """Its address in Ray's cluster."""
    step: int
    """Steps done."""
    phase: str
    """What it does now: starting, data, forward_backward, update, reduce, evaluate, save."""
    loss: float | None
    """Of the last step; None before the first."""


OnStatus = Callable[[list[WorkerStatus]], None]
"""Told of all workers, by rank, about twice a second (in this process: after each step)."""


class Observer:
    """One worker's side: `run` reports to its watch, the supervisor asks it from another thread."""

    def __init__(self, *, on_step: Callable[[], None] | None = None) -> None:
        self.on_step = on_step
        self.trainer: Trainer | None = None
        self.stop_requested = False
        self.loss: float | None = None

    def watch(self, moment: Callable[[str, Trainer], None] | None = None) -> Watch:
        return Watch(step=self._see_step, trainer=self._see_trainer, moment=moment or (lambda *_: None))

    def request_stop(self) -> None:
        """Ask the trainer to stop after its step, or after its first one where there is no trainer yet."""
        self.stop_requested = True
        if self.trainer is not None:
            self.trainer.request_stop()

    def status(self) -> WorkerStatus:
        """As of a worker alone on this machine; the supervisor knows rank and node better."""
        trainer = self.trainer
        step, phase = (0, "starting") if trainer is None else (trainer.step, trainer.stopwatch.phase)
        return WorkerStatus(0, os.getpid(), "127.0.0.1", step, phase, self.loss)

    def _see_trainer(self, trainer: Trainer) -> None:
        self.trainer = trainer
        if self.stop_requested:
            trainer.request_stop()

    def _see_step(self, report: StepReport) -> None:
        self.loss = report.loss
        if self.on_step is not None:
            self.on_step()
