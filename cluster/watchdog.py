"""Finding out that a worker hangs: which one, in which phase, and where in the code.

Time is counted while the watcher itself is awake: after a pause of its process (Ctrl-Z) nobody is accused.
"""

import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from cluster.observer import Observer, WorkerStatus
from data_pipeline.config import GaveUp
from pretrain.report import STARTING
from pretrain.run_directory import record_event

START_SECONDS = 120.0
"""A worker may take so long to start whatever the limit is: it reads its libraries and builds its model."""
SILENCE_SECONDS = 120.0
"""A worker that answers nothing at all for so long is lost, even if the limit for a phase is longer."""
LONGEST_LOOK = 5.0
"""Between two looks no more than this is counted, however long they were apart."""
EVENT_SECONDS = 5.0
"""So long the record of a hang may take: it may be the storage that hangs."""


class Clock:
    """The seconds between looks, for a watcher that may have slept itself."""

    def __init__(self) -> None:
        self.before = time.monotonic()

    def elapsed(self) -> float:
        """Since the last call, LONGEST_LOOK at most."""
        now = time.monotonic()
        taken, self.before = min(now - self.before, LONGEST_LOOK), now
        return taken


@dataclass
class Stillness:
    """For how long one worker has got on with nothing, and for how long it has said nothing."""

    ticks: int = -1
    seconds: float = 0.0
    silent_seconds: float = 0.0
    starting: bool = True

    def pass_time(self, elapsed: float) -> None:
        self.seconds += elapsed
        self.silent_seconds += elapsed

    def see(self, status: WorkerStatus) -> None:
        """It has answered."""
        self.silent_seconds = 0.0
        if status.ticks != self.ticks:
            self.ticks, self.seconds = status.ticks, 0.0
        self.starting = status.phase == STARTING

    def hangs(self, limit: float) -> bool:
        return self.seconds > self._limit(limit)

    def is_silent(self, limit: float) -> bool:
        return self.silent_seconds > min(self._limit(limit), SILENCE_SECONDS)

    def _limit(self, limit: float) -> float:
        return max(limit, START_SECONDS) if self.starting else limit


@dataclass
class Watched:
    """A worker that still trains, as its watcher sees it."""

    status: WorkerStatus
    stillness: Stillness = field(default_factory=Stillness)


def all_have_started(watched: Sequence[Watched]) -> None:
    """Give nobody longer for a start once one worker has done a step, for it cannot without the others: one that stands
    still may have been seen last while it started."""
    if any(worker.status.loss is not None for worker in watched):
        for worker in watched:
            worker.stillness.starting = False


def hung(watched: Sequence[Watched], limit: float) -> list[Watched]:
    """Those that keep the others waiting, once they have got on with nothing for `limit` seconds.

    A worker that waits for others in a collective is none of them, while any other gets on. Where all wait, or where
    it does not show (the wait for a GPU), they are those behind the others.
    """
    still = [worker for worker in watched if worker.stillness.hangs(limit)]
    accused = [worker for worker in still if not waits_for_others(worker.status)]
    if not accused and len(still) == len(watched):
        accused = still
    mute = [worker for worker in accused if worker.stillness.silent_seconds > limit / 2]
    accused = mute or accused
    least = min((worker.status.ticks for worker in accused), default=0)
    return [worker for worker in accused if worker.status.ticks == least]


def waits_for_others(status: WorkerStatus) -> bool:
    """Whether its training thread is in a collective."""
    return any("/torch/distributed/" in frame for frame in status.stack[:4])


def where(status: WorkerStatus) -> str:
    """The phase and the innermost frame."""
    return f"in its phase {status.phase!r}" + (f" at {status.stack[0]}" if status.stack else "")


class Watchdog:
    """Ends this process, with exit code 6, where its worker gets on with nothing for `limit` seconds.

    For a worker that no driver watches: the stack goes to standard error and, as the event `hung`, into the run.
    """

    def __init__(
        self, observer: Observer, directory: Path, *, limit: float, rank: int = 0, end: Callable[[int], None] = os._exit
    ) -> None:
        self.observer, self.directory, self.limit, self.rank, self.end = observer, directory, limit, rank, end
        self.left = threading.Event()
        self.thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> "Watchdog":
        self.thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.left.set()
        self.thread.join()

    def _watch(self) -> None:
        clock, stillness = Clock(), Stillness()
        while not self.left.wait(min(LONGEST_LOOK, self.limit) / 4):
            stillness.pass_time(clock.elapsed())
            status = self.observer.status()
            stillness.see(status)
            if stillness.hangs(self.limit):
                self._bark(status, stillness.seconds)
                self.end(GaveUp.exit_code)
                return

    def _bark(self, status: WorkerStatus, seconds: float) -> None:
        print(
            f"error: worker {self.rank} (process {status.pid}) hangs: it has got on with nothing for {seconds:.0f} s "
            f"(supervision.hang_minutes) in its phase {status.phase!r}; `resume {self.directory}` goes on from the "
            "newest good checkpoint; its stack, innermost first:",
            *status.stack,
            sep="\n  ",
            file=sys.stderr,
            flush=True,
        )
        record = threading.Thread(target=self._record, args=(status,), daemon=True)
        record.start()
        record.join(EVENT_SECONDS)

    def _record(self, status: WorkerStatus) -> None:
        record_event(
            self.directory,
            "hung",
            worker=self.rank,
            node=status.node,
            phase=status.phase,
            stack=list(status.stack),
        )
