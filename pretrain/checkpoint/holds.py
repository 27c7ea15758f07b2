"""Holds: whoever reads a checkpoint while its run goes on says so beside it, and retention lets it be.

A hold is live while its process is, where that is on this machine; a hold of another one is live while its count moves.
No clock is read for it that somebody may set, and those of two machines are never compared.
"""

import errno
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from pretrain.checkpoint.layout import HELD, Place, checkpoints_of, hold_of
from pretrain.owner import Owner, decode, encode

RENEW_SECONDS = 2.0
STALE_SECONDS = 10.0
"""By the looker's own clock: a count that stood still for so long between two looks stands still."""


class Hold:
    """This process's hold on a checkpoint, from here until it is released or the process ends.

    Where this process may not write beside the checkpoint it holds nothing; other failures are raised (OSError).
    """

    def __init__(self, checkpoint: Path, *, renew_seconds: float = RENEW_SECONDS) -> None:
        token = uuid4().hex[:8]
        self.path = hold_of(checkpoint, token)
        self._draft = self.path.with_name(f".hold-{token}")
        self._owner = Owner.here(token)
        self._beats, self._renew_seconds = 0, renew_seconds
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="hold", daemon=True)
        try:
            self._write()
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
            self._ended.set()
        self._thread.start()

    def release(self) -> None:
        self._ended.set()
        self._thread.join()
        with suppress(OSError):  # storage that is gone: the hold goes stale by itself
            self.path.unlink(missing_ok=True)

    def _renew(self) -> None:
        while not self._ended.wait(self._renew_seconds):
            self._beats += 1
            with suppress(OSError):  # storage that fails for a moment is tried again at the next beat
                self._write()

    def _write(self) -> None:
        self._draft.write_text(encode(self._owner, self._beats), encoding="utf-8")
        os.replace(self._draft, self.path)


@contextmanager
def held(checkpoint: Path) -> Iterator[None]:
    """Retention lets the checkpoint be while the context lasts."""
    hold = Hold(checkpoint)
    try:
        yield
    finally:
        hold.release()


class Holds:
    """The live holds on a run's checkpoints, as one process sees them over time."""

    def __init__(self, run: Path, *, stale_seconds: float = STALE_SECONDS) -> None:
        self.folder, self.stale_seconds = checkpoints_of(run), stale_seconds
        self._seen: dict[str, tuple[bytes, float]] = {}
        """By file name: its content, and when it was first seen so, by this process's own clock."""

    def of(self, place: Place) -> list[str]:
        """Who holds a checkpoint."""
        found = []
        for path in sorted(self.folder.glob(f"{place.name}{HELD}*.json")):
            with suppress(FileNotFoundError):
                content = path.read_bytes()
                owner, _ = decode(content) or (None, 0)
                if self._is_live(owner, path.name, content):
                    found.append(str(owner or "an unreadable hold"))
        return found

    def forget(self, place: Place) -> None:
        """Remove the holds on a checkpoint that is no more."""
        for path in self.folder.glob(f"{place.name}{HELD}*.json"):
            path.unlink(missing_ok=True)

    def _is_live(self, owner: Owner | None, name: str, content: bytes) -> bool:
        if owner is not None and owner.is_near:
            return owner.lives
        return not self._stands_still(name, content)

    def _stands_still(self, name: str, content: bytes) -> bool:
        """Never so at the first look."""
        now = time.monotonic()
        before, since = self._seen.get(name, (None, now))
        self._seen[name] = (content, since if content == before else now)
        return content == before and now - since >= self.stale_seconds
