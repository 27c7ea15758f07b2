"""Whether every node sees the run's directory: each reads what the driver wrote, and the driver what each wrote."""

import shutil
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from data_pipeline.config import Refused

PREFIX = ".storage-check-"
REMEDY = "a run over several nodes needs a directory that all of them share (NFS, Lustre, a Kubernetes volume, ...)"


class StorageNotSharedError(Refused):
    """A node does not see the run's directory as the driver does."""


class StorageCheck:
    """A token in the run's directory; leaving the context removes all that was written for it."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.token = directory, uuid.uuid4().hex
        self.place = directory / f"{PREFIX}{self.token}"

    def __enter__(self) -> "StorageCheck":
        for left in self.directory.glob(f"{PREFIX}*"):  # of a driver that was killed; this one holds the run
            shutil.rmtree(left, ignore_errors=True)
        try:
            self.place.mkdir()
            (self.place / "driver").write_text(self.token)
        except OSError as error:
            raise Refused(f"{self.directory}: the driver cannot write there: {error.strerror or error}") from error
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.place, ignore_errors=True)

    def judge(self, answers: Mapping[str, str | None]) -> None:
        """Raise StorageNotSharedError unless every node has answered well (`answer`, by the node's name) and its file
        is here."""
        wrong = {node: problem for node, problem in answers.items() if problem is not None}
        for node in answers:
            if node not in wrong and read(self.place / node) != self.token:
                wrong[node] = "wrote there, and the driver does not see it"
        if wrong:
            told = "; ".join(f"node {node} {problem}" for node, problem in sorted(wrong.items()))
            raise StorageNotSharedError(f"{self.directory} is not on storage that all nodes share: {told}; {REMEDY}")


def answer(directory: Path, token: str, node: str) -> str | None:
    """On a node: read the driver's token and write the node's own; what went wrong, or None."""
    place = directory / f"{PREFIX}{token}"
    if not directory.is_dir():
        return "has no such directory"
    if read(place / "driver") != token:
        return "does not see what the driver wrote there"
    try:
        (place / node).write_text(token)
    except OSError as error:
        return f"cannot write there: {error.strerror or error}"
    return None


def read(path: Path) -> str | None:
    """A file's text, if there is one that can be read."""
    with suppress(OSError, UnicodeDecodeError):
        return path.read_text()
    return None
