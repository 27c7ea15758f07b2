"""Results as they are made: a file of JSON lines, a header and then the records of each task.

Every line but the last is whole, whatever happened: what a kill or a full disk left of the last one is cut off when the
file is taken up again. A header holds the whole protocol, so that a file is never continued with another one.
"""

import fcntl
import json
import os
from collections.abc import Collection
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Any

from data_pipeline.config import BadInput
from evals.tasks.task import Record
from pretrain.checkpoint import NotSaved

LINE_BEGINS = b'{"task": "'
ANOTHER_FILE = "was the file changed, or were two put together? give --out another file"


def _difference(there: Any, now: Any, name: str = "") -> tuple[str, Any, Any] | None:
    """The first key, by its dotted name, whose values differ, with both."""
    if isinstance(there, dict) and isinstance(now, dict):
        for key in sorted({*there, *now}):
            found = _difference(there.get(key), now.get(key), f"{name}.{key}".removeprefix("."))
            if found:
                return found
        return None
    return None if there == now else (name, there, now)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


class ResultsFile:
    """Open for one evaluation; `None` keeps nothing on disk."""

    def __init__(self, path: Path | None) -> None:
        """Takes up what is there. BadInput where the file is not one of these, or cannot be written."""
        self._headers: dict[str, dict[str, Any]] = {}
        self._records: dict[str, list[Record]] = {}
        self._examples: dict[str, dict[str, int]] = {}
        """Of the records that were there, by task and name, the line of each."""
        self._path, self._file = path, None if path is None else self._open(path)

    def _open(self, path: Path) -> FileIO:
        if path.exists() and not path.is_file():
            raise BadInput(f"--out {path}: is no regular file, so it cannot be taken up again; give --out another file")
        try:
            file = FileIO(path, "a+")  # without a buffer: what cannot be written is not tried again behind our back
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
            if not LINE_BEGINS.startswith(content[len(whole) :][: len(LINE_BEGINS)]):
                raise BadInput(f"{path}: its last line is none of results; give --out another file")
            for number, line in enumerate(whole.splitlines(), start=1):
                self._take(line, path, number)
        except BadInput:
            file.close()
            raise
        file.truncate(len(whole))
        return file

    def _take(self, line: bytes, path: Path, number: int) -> None:
        """A header, or a record of a task that has one: each header and each example once."""
        place = f"{path}:{number}"
        try:
            found = json.loads(line, parse_constant=_refuse)
            task = found.pop("task")
            is_header = "protocol" in found
            value = found["protocol" if is_header else "example"]
            if (type(task), type(value)) != (str, dict if is_header else str):
                raise TypeError(f"task {task!r}, {value!r}")
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise BadInput(f"{place}: is no line of results; give --out another file") from error
        if is_header:
            if task in self._headers:
                raise BadInput(f"{place}: {task} has its protocol twice, and must have it once; {ANOTHER_FILE}")
            self._headers[task] = value
            return
        if task not in self._headers:
            raise BadInput(f"{place}: a result of {task} before its protocol, which must come first; {ANOTHER_FILE}")
        before = self._examples.setdefault(task, {}).setdefault(value, number)
        if before != number:
            raise BadInput(
                f"{place}: example {value!r} of {task} is on line {before} too, and must be there once; {ANOTHER_FILE}"
            )
        self._records.setdefault(task, []).append(found)

    @property
    def num_records(self) -> int:
        """Of all tasks."""
        return sum(map(len, self._records.values()))

    def check(self, task: str, protocol: dict[str, Any], examples: Collection[str] | None = None) -> None:
        """BadInput where records of the task are there that were made by another protocol, or of none of `examples`."""
        there = self._headers.get(task)
        if there is not None and (found := _difference(there, json.loads(json.dumps(protocol)))):
            name, before, now = found
            raise BadInput(
                f"--out {self._path}: {task} was evaluated otherwise: {name} is {before!r} there and {now!r} now; "
                "give --out another file"
            )
        names = None if examples is None else frozenset(examples)
        for name, number in self._examples.get(task, {}).items():
            if names is not None and name not in names:
                raise BadInput(
                    f"{self._path}:{number}: {task} has no example {name!r} with this protocol; {ANOTHER_FILE}"
                )

    def not_whole(self, task: str, why: Exception) -> BadInput:
        """What to raise where records of the task that were there have not the fields that it wrote."""
        said = f"has no {why}" if isinstance(why, KeyError) else f"has a wrong value ({why})"
        return BadInput(f"--out {self._path}: a result of {task} {said}; {ANOTHER_FILE}")

    def begin(self, task: str, protocol: dict[str, Any]) -> list[Record]:
        """The records that are there already. BadInput as `check`; NotSaved as `add`."""
        self.check(task, protocol)
        if task not in self._headers:
            self._write({"task": task, "protocol": protocol})
            self._headers[task] = json.loads(json.dumps(protocol))
        return self._records.setdefault(task, [])

    def add(self, task: str, record: Record) -> None:
        """NotSaved, the file closed, where it cannot be written; BadInput where a value is nan or infinite."""
        self._write({"task": task} | record)
        self._records[task].append(record)

    def _write(self, values: dict[str, Any]) -> None:
        line = plain_json(values) + b"\n"
        if self._file is None:
            return
        try:
            while line:
                line = line[self._file.write(line) :]
        except OSError as error:
            with suppress(OSError):  # it has failed already
                self._file.close()
            raise self._not_saved(error) from error

    def close(self) -> None:
        """Everything is on disk after it; NotSaved where that cannot be. Nothing is done a second time."""
        if self._file is None or self._file.closed:
            return
        try:
            with self._file:
                os.fsync(self._file.fileno())
        except OSError as error:
            raise self._not_saved(error) from error

    def _not_saved(self, error: OSError) -> NotSaved:
        return NotSaved(
            f"--out {self._path}: cannot be written ({error.strerror or error}); what is there stays: free space, and "
            "the same command goes on with it"
        )


def plain_json(values: dict[str, Any]) -> bytes:
    """One line without its end. BadInput for nan and infinity, which JSON has not."""
    try:
        return json.dumps(values, allow_nan=False).encode()
    except ValueError as error:
        example = f", example {values['example']}" if "example" in values else ""
        raise BadInput(
            f"{values['task']}{example}: has nan or infinity among its values, which results cannot hold: a model "
            "whose numbers are not finite cannot be evaluated; take an earlier checkpoint"
        ) from error
