"""Results as they are made: a file of JSON lines, a header and then the records of each task.

Every line but the last is whole, whatever happened: what a kill left of the last one is cut off when the file is taken
up again. A header holds the whole protocol, so that a file is never continued with another one.
"""

import fcntl
import json
import os
from pathlib import Path
from typing import Any, TextIO

from data_pipeline.config import BadInput
from evals.tasks.task import Record


class ResultsFile:
    """Open for one evaluation; `None` keeps nothing on disk."""

    def __init__(self, path: Path | None) -> None:
        """Takes up what is there. BadInput where the file is not one of these, or cannot be written."""
        self._headers: dict[str, dict[str, Any]] = {}
        self._records: dict[str, list[Record]] = {}
        self._path, self._file = path, None if path is None else self._open(path)

    def _open(self, path: Path) -> TextIO:
        try:
            file = path.open("a+", encoding="utf-8")
        except OSError as error:
            raise BadInput(f"--out {path}: cannot be written: {error.strerror}") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.close()
            raise BadInput(f"--out {path}: another evaluation writes it now; give --out another file") from error
        except OSError:
            pass  # a file system without locks
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        try:
            for number, line in enumerate(whole.splitlines(), start=1):
                self._take(line, f"{path}:{number}")
        except BadInput:
            file.close()
            raise
        file.truncate(len(whole))
        return file

    def _take(self, line: bytes, place: str) -> None:
        try:
            found = json.loads(line)
            task = found.pop("task")
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise BadInput(f"{place}: is no line of results; give --out another file") from error
        if "protocol" in found:
            self._headers[task] = found["protocol"]
        else:
            self._records.setdefault(task, []).append(found)

    def begin(self, task: str, protocol: dict[str, Any]) -> list[Record]:
        """The records that are there already. BadInput where they were made by another protocol."""
        plain = json.loads(json.dumps(protocol))
        there = self._headers.get(task)
        if there is None:
            self._headers[task] = plain
            self._write({"task": task, "protocol": plain})
        elif there != plain:
            names = sorted(name for name in {*there, *plain} if there.get(name) != plain.get(name))
            raise BadInput(
                f"--out {self._path}: {task} was evaluated otherwise: {names[0]} is {there.get(names[0])!r} there and "
                f"{plain.get(names[0])!r} now; give --out another file"
            )
        return self._records.setdefault(task, [])

    def add(self, task: str, record: Record) -> None:
        self._records[task].append(record)
        self._write({"task": task} | record)

    def _write(self, line: dict[str, Any]) -> None:
        if self._file is not None:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()

    def close(self) -> None:
        """Everything is on disk after it."""
        if self._file is not None:
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None
