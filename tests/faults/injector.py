"""Small faults that happen inside a worker, at a moment of its run: see `cluster.job.Injector`."""

import ctypes
import os
import resource
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from pretrain.trainer import Trainer


@dataclass(frozen=True)
class Fault:
    """Happens to one worker at the first such moment from a step on; once in a run, restarts included."""

    what: str
    """kill, freeze (SIGSTOP), hang, hold (hang in a call that keeps the interpreter's lock), fill (all memory that it
    may have), hoard (much of the machine's memory), raise."""
    rank: int
    moment: str
    step: int
    marker: Path
    """Made as it happens; its content says when (`time.time()`), and by which process."""

    def __call__(self, moment: str, trainer: Trainer) -> None:
        if (moment, trainer.engine.group.rank) != (self.moment, self.rank) or trainer.step < self.step:
            return
        if not self.marker.exists():
            self.marker.write_text(f"{time.time()} {os.getpid()}")
            self._happen()

    def _happen(self) -> None:
        if self.what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.what == "freeze":
            os.kill(os.getpid(), signal.SIGSTOP)
        elif self.what == "hang":
            sleep_for_ever()
        elif self.what == "fill":
            fill_memory()
        elif self.what == "hoard":
            hoard_memory()
        elif self.what == "hold":
            ctypes.PyDLL(None).pause()
        else:
            raise OSError("a fault that a test lets happen")


@dataclass(frozen=True)
class Slow:
    """One worker takes longer in every such moment."""

    rank: int
    moment: str
    seconds: float

    def __call__(self, moment: str, trainer: Trainer) -> None:
        if (moment, trainer.engine.group.rank) == (self.moment, self.rank):
            time.sleep(self.seconds)


@dataclass
class Signals:
    """Signals to the worker's own process, one after another, in the middle of one of its saves."""

    numbers: Sequence[int]
    save: int
    """Which, from 1."""
    saves: int = 0

    def __call__(self, moment: str, trainer: Trainer) -> None:
        self.saves += moment == "save: directory made"
        if (self.saves, moment) == (self.save, "save: block written"):
            for number in self.numbers:
                os.kill(os.getpid(), number)
                time.sleep(0.2)
            self.numbers = ()


@dataclass(frozen=True)
class Faults:
    """Several."""

    faults: Sequence[Fault]

    def __call__(self, moment: str, trainer: Trainer) -> None:
        for fault in self.faults:
            fault(moment, trainer)


def fill_memory() -> None:
    """Until the system gives no more: it is told to give this process but little."""
    used = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**29, used + 2**29))
    held = []
    while True:
        held.append(torch.ones(2**24))


def hoard_memory(pieces: int = 24) -> None:
    """A quarter of a GiB at a time, slowly enough that somebody may see it."""
    held = []
    for _ in range(pieces):
        held.append(torch.ones(2**26))
        time.sleep(0.3)


def sleep_for_ever() -> None:
    """As a loader whose storage never answers."""
    while True:
        time.sleep(3600)
