"""Which process holds something of a run, and whether it still lives; no clock is read for it."""

import json
import os
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
OWN_PROCESSES = Path("/proc/self/ns/pid")


@dataclass(frozen=True, slots=True)
class Owner:
    """A process, as it is known on every machine."""

    token: str
    """Of what it holds: no other has the same."""
    host: str
    machine: str
    """The host's boot and its table of processes: where both are the same, process numbers mean the same."""
    pid: int
    started: str
    """When the process began, to tell it from a later one with its number; not by the clock, which may be set."""

    @classmethod
    def here(cls, token: str) -> "Owner":
        """This process."""
        return cls.of(os.getpid(), token)

    @classmethod
    def of(cls, pid: int, token: str) -> "Owner":
        """A process of this machine."""
        return cls(token, socket.gethostname(), _machine(), pid, _began(pid) or "")

    @property
    def is_near(self) -> bool:
        """Of this machine, so that `lives` can be asked; of another one only a moving count tells."""
        return (self.host, self.machine) == (socket.gethostname(), _machine())

    @property
    def lives(self) -> bool:
        """Whether the process, one of this machine, is still there."""
        return _began(self.pid) == self.started

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host or 'an unknown host'}"


def encode(owner: Owner, beats: int) -> str:
    """The content of a file that says who holds something; `beats` counts up while it does."""
    return json.dumps({**asdict(owner), "beats": beats})


def decode(content: str | bytes) -> tuple[Owner, int] | None:
    """What `encode` was given, or None where the content is something else."""
    try:
        values = json.loads(content)
        beats = int(values.pop("beats"))
        return Owner(**values), beats
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _machine() -> str:
    if not (BOOT_ID.exists() and OWN_PROCESSES.exists()):
        return "one machine a host"
    return f"{BOOT_ID.read_text().strip()} {OWN_PROCESSES.stat().st_ino}"


def _began(pid: int) -> str | None:
    """When a live process of this machine began, by a count of the kernel where it tells one; None where it is gone."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        status = Path(f"/proc/{pid}/stat")
        if not status.exists():
            return f"{process.create_time():.2f} by the clock"
        return f"{status.read_text().rpartition(')')[2].split()[19]} ticks after boot"
    except (psutil.NoSuchProcess, OSError):
        return None
