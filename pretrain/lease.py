"""A live job's claim on a run directory; no clock is read: a holder lives by its process, or by a moving count."""

import fcntl
import os
import threading
import time
import types
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from data_pipeline.config import BadInput, Refused
from pretrain.owner import Owner, decode, encode

LOCK = ".lease-lock"


@dataclass(frozen=True, slots=True)
class Claim:
    """What a holder of a lease hands to its workers, so that they stop when it is another's."""

    path: Path
    token: str

    def check(self) -> None:
        """Raise Refused unless the lease still is the holder's; to be called before anything of the run is replaced."""
        holder = _read_lease(self.path)
        if holder is None:
            raise Refused(f"{self.path} is gone, so this job no longer holds the run; it stops without saving")
        owner = holder[0]
        if owner.token != self.token:
            raise Refused(
                f"{self.path.parent} was taken over by {owner}, for nothing had been heard of this job's driver; this "
                "job stops without saving"
            )


class Lease:
    """Held while the context lasts, renewed by a count, never by a clock.

    A holder on this machine is live while its process is; one elsewhere while its count moves. A stale lease is taken
    over; its holder, if it lives after all, learns so from `check`.
    """

    def __init__(self, directory: Path, *, renew_seconds: float = 2.0) -> None:
        self.path, self.renew_seconds = directory / "lease.json", renew_seconds
        self.owner = Owner.here(uuid.uuid4().hex)
        self.beats = 0
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._renew, daemon=True)

    @property
    def claim(self) -> Claim:
        """Plain values, to be sent to the workers."""
        return Claim(self.path.absolute(), self.owner.token)

    def check(self) -> None:
        """Raise Refused unless this lease is still in force."""
        self.claim.check()

    def __enter__(self) -> "Lease":
        try:
            with _one_at_a_time(self.path.with_name(LOCK)):
                holder = self._holder()
                if holder is not None and self._is_live(*holder):
                    raise self._taken(holder[0])
                os.replace(self._written(), self.path)
        except OSError as error:
            raise BadInput(f"{self.path} cannot be written: {error}") from error
        self.thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | types.TracebackType | None) -> None:
        self.ended.set()
        self.thread.join()
        if self._is_ours():
            self.path.unlink()

    def _taken(self, owner: Owner) -> Refused:
        return Refused(
            f"{self.path.parent} is in use by {owner}; wait for it or stop it "
            f"(a lease whose holder is gone is taken over by itself)"
        )

    def _renew(self) -> None:
        while not self.ended.wait(self.renew_seconds):
            self.beats += 1
            with suppress(OSError):  # storage that fails for a moment is tried again at the next beat
                if self._is_ours():
                    os.replace(self._written(), self.path)

    def _is_ours(self) -> bool:
        holder = self._holder()
        return holder is not None and holder[0].token == self.owner.token

    def _written(self) -> Path:
        """A file of our own with the lease's content."""
        path = self.path.with_name(f".lease-{self.owner.token}")
        path.write_text(encode(self.owner, self.beats), encoding="utf-8")
        return path

    def _holder(self) -> tuple[Owner, int] | None:
        return _read_lease(self.path)

    def _is_live(self, owner: Owner, beats: int) -> bool:
        if owner.is_near:
            return owner.lives
        if not owner.host:
            return False
        time.sleep(5 * self.renew_seconds)
        later = self._holder()
        return later is not None and later[0].token == owner.token and later[1] != beats


@contextmanager
def _one_at_a_time(lock: Path) -> Iterator[None]:
    """Of all processes that look at a lease, one judges and takes it; the system lets go for one that dies."""
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if os.stat(lock).st_ino == os.fstat(descriptor).st_ino:
                break
        os.close(descriptor)  # who had it before has removed it
    try:
        yield
    finally:
        lock.unlink()
        os.close(descriptor)


def _read_lease(path: Path) -> tuple[Owner, int] | None:
    """Whose it is, and its count; None where there is none."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    return decode(content) or (Owner("unreadable", "", "", 0, ""), 0)
