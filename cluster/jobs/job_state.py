"""What is known of a job: what was submitted, and how it goes."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

from cluster.jobs.package import Package

State = Literal["pending", "running", "succeeded", "stopped", "failed", "lost"]
"""stopped: asked to, after saving; lost: its processes are gone, and it never said how it ended."""
RUNNING: tuple[State, ...] = ("pending", "running")
STATES: dict[int, State] = {0: "succeeded", 5: "stopped", 130: "stopped", 143: "stopped"}
"""By the exit code of the command line; any other is a failure. 143: SIGTERM came before there was anything to save."""
WITHOUT_CODE: dict[State, int] = {"succeeded": 0, "stopped": 5, "failed": 1, "lost": 1}
"""What a job is taken to have ended with where its exit code is not known: Ray has none of one that it stopped."""


@dataclass(frozen=True, slots=True)
class Submission:
    """What was asked for; its text values travel with the job and are shown of it, so there is no secret in them."""

    id: str
    kind: Literal["train", "prepare", "resume"]
    name: str
    storage: str
    """The directory in which relative paths of the recipe begin, on every node."""
    run: str | None
    """The run's directory; None for data."""
    command: str
    """For a shell, in the directory of the unpacked code."""
    workers: str
    """As asked for."""
    commit: str = ""
    dirty: str = ""
    """`yes` where the code differed from its commit."""
    code: str = ""
    """Digest of the packed code: the same for the same code."""
    submitted_at: str = ""
    """UTC."""

    def metadata(self) -> dict[str, str]:
        """For Ray, which keeps text by name."""
        values = {name: value for name, value in asdict(self).items() if value is not None}
        return {f"{PREFIX}{name}": str(value) for name, value in values.items()}

    @classmethod
    def from_metadata(cls, metadata: dict[str, str]) -> "Submission | None":
        """What `metadata` gave; None where the job is not one of Segue's."""
        values: dict[str, Any] = {
            name.removeprefix(PREFIX): value for name, value in metadata.items() if name.startswith(PREFIX)
        }
        try:
            return cls(**{"run": None} | values)
        except TypeError:
            return None


PREFIX = "segue."


@dataclass(frozen=True, slots=True)
class JobState:
    """A job at one moment."""

    submission: Submission
    state: State
    exit_code: int | None
    message: str = ""
    """What the cluster says of it."""

    @property
    def is_over(self) -> bool:
        return self.state not in RUNNING

    @property
    def ended_with(self) -> int:
        """The exit code to tell of a job that is over."""
        return WITHOUT_CODE[self.state] if self.exit_code is None else self.exit_code


class Jobs(Protocol):
    """Where jobs run: a Ray cluster, or this machine."""

    def submit(self, submission: Submission, package: Package, environment: dict[str, str]) -> None:
        """Hand the job over."""

    def all(self) -> list[JobState]:
        """Every job of Segue's that is known there, the newest first."""

    def get(self, job: str) -> JobState:
        """One of them by its id; raises BadInput where there is none."""

    def log(self, job: str) -> str:
        """All that it has printed."""

    def follow(self, job: str) -> Iterator[str]:
        """What it prints, piece by piece, until it is over."""

    def stop(self, job: str) -> None:
        """Ask it to save and stop."""
