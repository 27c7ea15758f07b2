"""Workers that are lost: what is said and recorded of each."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cluster.observer import WorkerStatus


@dataclass(frozen=True, slots=True)
class LostWorker:
    """One lost worker, as it was last seen."""

    line: str
    """For people: who, and how."""
    worker: int
    node: str
    phase: str
    stack: tuple[str, ...]
    """Innermost first; empty where it never said."""

    def record(self) -> dict[str, Any]:
        """For events.jsonl."""
        values = asdict(self)
        del values["line"]
        return values


class WorkersLostError(Exception):
    """Some workers died, hang or raised what no user can mend; the others may still be waiting for them."""

    def __init__(self, lines: Sequence[str], lost: Sequence[LostWorker] = ()) -> None:
        super().__init__("; ".join(lines))
        self.lines, self.lost = list(lines), list(lost)


def workers_lost(lost: Sequence[LostWorker]) -> WorkersLostError:
    """The error that tells of them."""
    return WorkersLostError([worker.line for worker in lost], lost)


def lost_worker(status: WorkerStatus, how: str) -> LostWorker:
    """`how` follows the worker's name, as in `died`."""
    name = f"worker {status.rank} (process {status.pid} on {status.node})"
    return LostWorker(f"{name} {how}", status.rank, status.node, status.phase, status.stack)


def first_line(error: BaseException) -> str:
    """The kind of the error and the first line of its message."""
    message = str(error).strip().splitlines()
    return f"{type(error).__name__}: {message[0]}" if message else type(error).__name__
