"""Saving while training goes on: a thread copies the state, then writes the copy; at most one save is in flight.

Forward and backward passes change nothing of what is saved, so training goes on at once, and waits for the copy only
before its next update (Mohan et al. 2021, CheckFreq, https://www.usenix.org/conference/fast21/presentation/mohan,
section 4).

The thread uses a process group of its own, so that its collectives never mix with those of training. A save that fails
on one worker fails on all at the next `join`; one whose storage hangs is given up after a time: its thread is left
behind with its copy and its group, can commit nothing any more, and does not keep the process from ending.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple

from data_pipeline.config import Refused, SegueError
from pretrain.checkpoint.holds import Holds
from pretrain.checkpoint.host_copy import HostCopy
from pretrain.checkpoint.interruptible import InterruptibleGroup, look_until
from pretrain.checkpoint.manifest import Description
from pretrain.checkpoint.phases import NotSaved, Phase
from pretrain.checkpoint.piece import Piece
from pretrain.checkpoint.write import save
from pretrain.group import Group


class Saver:
    """Saves of one run; every worker calls the same methods in the same order, from the thread that trains."""

    def __init__(
        self,
        run: Path,
        group: Group,
        *,
        keep: int | None,
        background: bool = True,
        timeout_seconds: float,
        phase: Callable[[Phase], None] = lambda _: None,
        warn: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`phase` and `warn` may be called on the saving thread."""
        self.run, self.group, self.keep = run, group, keep
        self.background, self.timeout_seconds, self.phase, self.warn = background, timeout_seconds, phase, warn
        self._own_group: Group | None = None
        self._copy, self._holds = HostCopy(), Holds(run)
        self._flight: _Flight | None = None

    def prepare(self, pieces: Iterable[Piece]) -> None:
        """Have the memory for a copy of such pieces made meanwhile, so that the first save need not wait for it."""
        self._copy.prepare(pieces)

    def start(self, *, step: int, pieces: Iterable[Piece], description: Description, temporary: bool = False) -> None:
        """Begin to copy the pieces that this worker owns, and then to write them; they may change once
        `wait_for_copy` returns. Joins the save before, and raises as `join` does.
        """
        self.join()
        if self._own_group is None:  # a peer that waits for us longer than a save may take is given up anyway
            self._own_group = self.group.second(timedelta(seconds=2 * self.timeout_seconds))
        flight = _Flight(deadline=time.monotonic() + self.timeout_seconds)
        values = {"step": step, "description": description, "temporary": temporary}
        given = (flight, self._own_group, list(pieces), values)
        threading.Thread(target=self._save, args=given, name="save", daemon=True).start()
        self._flight = flight
        if not self.background:
            self.join()

    @property
    def copying(self) -> bool:
        """Whether what is saved must not change yet."""
        return self._flight is not None and not self._flight.copied.is_set()

    def wait_for_copy(self) -> None:
        """To be called before anything changes what is saved."""
        if self._flight is not None:
            self._flight.copied.wait()

    @property
    def failed(self) -> bool:
        """Without waiting: whether the save in flight failed on this worker or takes too long. Then all must `join`."""
        flight = self._flight
        if flight is None or flight.path is not None:
            return False
        return flight.error is not None if flight.ended.is_set() else time.monotonic() >= flight.deadline

    def join(self) -> Path | None:
        """Wait for the save in flight; its directory, or None where there is none.

        Raises, the same on every worker, NotSaved if it failed on any or was not done in time, and Refused if the run
        is no longer this job's; the next save begins anew.
        """
        flight, self._flight = self._flight, None
        if flight is None:
            return None
        flight.ended.wait(max(0.0, flight.deadline - time.monotonic()))
        outcome = flight.outcome(self.timeout_seconds)
        if outcome.kind in ("hangs", "waits"):
            flight.given_up.set()
        elif not flight.ended.is_set():
            self._leave_removal(flight)
        outcomes: list[_Outcome] = self.group.gather(outcome)
        if any(outcome.kind in ("failed", "hangs", "waits") for outcome in outcomes):
            flight.given_up.set()
            # threads left behind may still use both
            self._copy, self._own_group = HostCopy(), None
        if outcomes[0].kind == "saved":  # the leader's: the pointer has moved
            return Path(outcomes[0].message)
        raise _error(outcomes) from flight.error

    def _leave_removal(self, flight: "_Flight") -> None:
        """The save is saved, but its thread has not ended: it removes older checkpoints, and is left to it."""
        self.warn(
            f"{flight.path} is saved, but to remove what it outdates takes longer than {self.timeout_seconds:g} s; the "
            "next save tries again"
        )
        self._holds = Holds(self.run)

    def close(self) -> None:
        """Join, and let go of the memory."""
        try:
            self.join()
        finally:
            self._copy = HostCopy()

    def __enter__(self) -> "Saver":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Joins. On an error this worker may be alone, so it calls no collective: it waits for its own part of the save
        if the run ends in order (a SegueError), and leaves it behind if not."""
        if error is None:
            self.close()
            return
        flight, self._flight = self._flight, None
        if flight is not None:
            if isinstance(error, SegueError):
                flight.ended.wait(max(0.0, flight.deadline - time.monotonic()))
            flight.given_up.set()

    def _save(self, flight: "_Flight", group: Group, pieces: list[Piece], values: dict[str, Any]) -> None:
        """What the thread does."""

        def copies() -> Iterator[Piece]:
            try:
                found = self._copy.take(pieces)
            finally:
                pieces.clear()  # some are all that still refers to their memory
                flight.copied.set()
            yield from found

        def phase(now: Phase) -> None:
            flight.last = now
            self.phase(now)
            if flight.path is None:
                flight.check()

        watched = InterruptibleGroup(
            group.rank, group.world_size, group.local_rank, group.process_group, wait=flight.wait_for_others
        )
        try:
            flight.path = save(
                self.run,
                pieces=copies(),
                **values,
                group=watched,
                keep=self.keep,
                holds=self._holds,
                phase=phase,
                before_move=flight.check,
                saved=flight.set_saved,
                warn=self.warn,
            )
        except BaseException as error:  # told by `failed` and `join`
            flight.error = error
        finally:
            flight.copied.set()
            flight.ended.set()


class _Outcome(NamedTuple):
    """How a save went on one worker: saved (as far as this worker knows), not saved by all alike or refused to all
    alike, failed outside of that, or not done in time and then either at work or waiting for the others."""

    kind: Literal["saved", "not saved", "refused", "failed", "hangs", "waits"]
    message: str
    """What is wrong; of one that is saved its directory."""


@dataclass(slots=True)
class _Flight:
    """One save, seen from both threads; each field is written by one of them alone."""

    deadline: float
    path: Path | None = None
    """Once it is saved."""
    error: BaseException | None = None
    last: Phase | Literal["begun"] = "begun"
    waits: bool = False
    """For the other workers."""
    copied: threading.Event = field(default_factory=threading.Event)
    """All that is to be saved of this worker, or it never will be."""
    ended: threading.Event = field(default_factory=threading.Event)
    given_up: threading.Event = field(default_factory=threading.Event)

    def set_saved(self, path: Path) -> None:
        self.path = path

    def check(self) -> None:
        """Raise where the save was given up."""
        if self.given_up.is_set():
            raise NotSaved("given up")

    def wait_for_others(self, is_done: Callable[[], bool]) -> None:
        """Until the collective is done."""
        self.waits = True
        look_until(is_done, self.check)
        self.waits = False

    def outcome(self, timeout_seconds: float) -> _Outcome:
        if self.path is not None:
            return _Outcome("saved", str(self.path))
        if not self.ended.is_set():
            since = f"since '{self.last}'; given up after {timeout_seconds:g} s"
            if self.waits:
                return _Outcome("waits", f"waits for the others {since}")
            return _Outcome("hangs", f"its storage hangs {since}")
        if isinstance(self.error, NotSaved | Refused):
            return _Outcome("refused" if isinstance(self.error, Refused) else "not saved", str(self.error))
        return _Outcome("failed", f"{type(self.error).__name__}: {self.error}")


def _error(outcomes: list[_Outcome]) -> SegueError:
    """Names those that are to blame: who waits for others is not, unless all wait."""
    for outcome in outcomes:
        if outcome.kind == "refused":
            return Refused(outcome.message)
        if outcome.kind == "not saved":
            return NotSaved(outcome.message)
    for kind in ("hangs", "failed", "waits"):
        named = [f"worker {rank}: {o.message}" for rank, o in enumerate(outcomes) if o.kind == kind]
        if named:
            return NotSaved("checkpoint not saved: " + "; ".join(named))
    raise AssertionError("there is a failure")
