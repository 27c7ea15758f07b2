"""What is kept of a node that `segue cluster start` has started on this machine, and which processes are its own."""

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from cluster.user_state import user_state
from data_pipeline.config import BadInput
from pretrain.owner import Owner

MARK = "SEGUE_NODE"
"""In the environment of a node's processes, its directory: what they start has it too."""


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """A node of Ray's. No secret is in it."""

    name: str
    """By which its user knows it, on this machine."""
    head: bool
    address: str
    """Of the cluster's head."""
    host: str
    """Its own."""
    dashboard: str | None
    """The URL to submit to; the head has it."""
    authenticated: bool
    """Whether its cluster asks for the token."""
    directory: str
    """Of Ray's files; also of the lock that its servers hold."""
    servers: tuple[Owner, ...] = ()
    """Ray's servers that were started for it, by their names; none while it starts."""

    @property
    def ended(self) -> list[str]:
        """The names of its servers that are gone."""
        return [owner.token for owner in self.servers if not (owner.is_near and owner.lives)]

    @property
    def lives(self) -> bool:
        """Whether the server does that it is nothing without."""
        servers = {owner.token for owner in self.servers}
        return ("gcs_server" if self.head else "raylet") in servers.difference(self.ended)

    def processes(self) -> list[psutil.Process]:
        """All that live of it: its servers, and what they started, jobs included."""
        servers = {owner.pid for owner in self.servers if owner.is_near and owner.lives}
        found: dict[int, psutil.Process] = {}
        for process in psutil.process_iter():
            if process.pid in servers or _belongs(process, self.directory):
                found[process.pid] = process
                with suppress(psutil.Error):
                    found |= {child.pid: child for child in process.children(recursive=True)}
        found.pop(os.getpid(), None)
        return [process for process in found.values() if _lives(process)]

    def write(self) -> None:
        path = record_path(self.name)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        written = path.with_suffix(".new")
        written.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")
        written.replace(path)

    def forget(self) -> None:
        record_path(self.name).unlink(missing_ok=True)


def records() -> list[NodeRecord]:
    """Of all nodes that were started on this machine and not stopped, heads first."""
    found = [record for path in sorted(state_directory().glob("*.json")) if (record := read(path)) is not None]
    return sorted(found, key=lambda record: not record.head)


def read(path: Path) -> NodeRecord | None:
    """None where the file is none of this program, or gone."""
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        servers = tuple(Owner(**owner) for owner in values.pop("servers"))
        return NodeRecord(**values, servers=servers)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def record_path(name: str) -> Path:
    return state_directory() / f"{name}.json"


def state_directory() -> Path:
    """Of this user on this machine; a home directory may be that of many machines."""
    return user_state() / "nodes" / socket.gethostname()


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Of all processes of this user that start or stop nodes on this machine."""
    directory = state_directory()
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (directory / "lock").open("w")
    except OSError as error:
        raise BadInput(f"{directory}: what is started cannot be recorded: {error.strerror}") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _belongs(process: psutil.Process, directory: str) -> bool:
    """Whether it was started for the node: by its environment, or by the lock that it inherited.

    Ray writes the names of its processes over their environments.
    """
    try:
        if process.environ().get(MARK) == directory:
            return True
        return any(Path(file.path).parent == Path(directory) for file in process.open_files())
    except (psutil.Error, OSError):
        return False


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
