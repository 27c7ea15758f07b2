"""What a running worker tells of itself, and the request to stop, which reaches its trainer once there is one."""

import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from pretrain.hardware import resident_bytes
from pretrain.report import STARTING, StepReport
from pretrain.run import Watch
from pretrain.trainer import Trainer

OWN_WORK = ("data", "forward")
"""The phases in which a worker waits for no other, but for ZeRO 3, which gathers weights in forward."""

STACK_FRAMES = 12


@dataclass(frozen=True, slots=True)
class Work:
    """What a worker has done alone since it started, up to the end of a step."""

    step: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    """By phase of OWN_WORK."""


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
    """What it does now: starting, restore, data, forward_backward, forward, update, reduce, evaluate, save,
    between phases."""
    loss: float | None
    """Of the last step; None before the first."""
    ticks: int = 0
    """Phases begun and ended: a worker whose count stands still gets on with nothing."""
    stack: tuple[str, ...] = ()
    """Where its training thread is, innermost first."""
    work: Work = Work()
    memory_bytes: int = 0
    """Resident, or at the peak of its GPU."""


OnStatus = Callable[[list[WorkerStatus]], None]
"""Told of all workers, by rank, about twice a second (in this process: after each step)."""


class Observer:
    """One worker's side: `run` reports to its watch, the supervisor asks it from another thread."""

    def __init__(self, *, on_step: Callable[[], None] | None = None) -> None:
        self.on_step = on_step
        self.trainer: Trainer | None = None
        self.stop_requested = self.stop_at_save_requested = False
        self.loss: float | None = None
        self.work = Work()
        self.thread: int | None = None

    def train_here(self) -> None:
        """The calling thread is the one that trains: its stack is told."""
        self.thread = threading.get_ident()

    def watch(
        self,
        moment: Callable[[str, Trainer], None] | None = None,
        *,
        may_write: Callable[[], None] | None = None,
    ) -> Watch:
        """For the run that the calling thread is about to begin."""
        self.train_here()
        return Watch(
            step=self._see_step,
            trainer=self._see_trainer,
            moment=moment or (lambda *_: None),
            may_write=may_write or (lambda: None),
        )

    def request_stop(self) -> None:
        """Ask the trainer to stop after its step, or after its first one where there is no trainer yet."""
        self.stop_requested = True
        if self.trainer is not None:
            self.trainer.request_stop()

    def request_stop_at_save(self) -> None:
        """Ask the trainer to stop with its next checkpoint, the first one where there is no trainer yet."""
        self.stop_at_save_requested = True
        if self.trainer is not None:
            self.trainer.request_stop_at_save()

    def status(self) -> WorkerStatus:
        """As of a worker alone on this machine; the supervisor knows rank and node better."""
        trainer, step, phase, ticks = self.trainer, 0, STARTING, 0
        if trainer is not None:
            step, phase, ticks = trainer.step, trainer.stopwatch.phase, trainer.stopwatch.ticks
        stack = stack_of(self.thread) if self.thread is not None else ()
        memory = resident_bytes()
        return WorkerStatus(0, os.getpid(), "127.0.0.1", step, phase, self.loss, ticks, stack, self.work, memory)

    def _see_trainer(self, trainer: Trainer) -> None:
        self.trainer = trainer
        if self.stop_requested:
            trainer.request_stop()
        if self.stop_at_save_requested:
            trainer.request_stop_at_save()

    def _see_step(self, report: StepReport) -> None:
        self.loss = report.loss
        if self.trainer is not None:
            totals = self.trainer.stopwatch.totals
            self.work = Work(report.step, {phase: totals.get(phase, 0.0) for phase in OWN_WORK})
        if self.on_step is not None:
            self.on_step()


def stack_of(thread: int) -> tuple[str, ...]:
    """The innermost frames of a thread of this process, as `file:line function`; nothing once it has ended."""
    frame = sys._current_frames().get(thread)
    lines: list[str] = []
    while frame is not None and len(lines) < STACK_FRAMES:
        lines.append(f"{frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_name}")
        frame = frame.f_back
    return tuple(lines)
