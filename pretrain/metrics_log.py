"""metrics.jsonl and TensorBoard: every step of a run, one line each, no step twice.

Neither stops a run when its storage fails: rows wait in memory until they can be written, and one event warns.
"""

import json
import math
import os
import types
from pathlib import Path
from typing import Any

from data_pipeline.redaction import redact
from pretrain.curves import Curves, OpenWriter, Row, open_summary_writer
from pretrain.run_directory import record_event

MOST_WAITING = 100_000
"""Rows in memory while the storage fails, some 100 MB; then the oldest are lost."""


class MetricsLog:
    """Appends rows; opened at a step, it first drops the rows of later steps, which are about to be computed again."""

    def __init__(
        self, directory: Path, *, first_step: int, tensorboard: bool, open_writer: OpenWriter = open_summary_writer
    ) -> None:
        self.directory, self.path, self.first_step = directory, directory / "metrics.jsonl", first_step
        self.dropped = False
        """Whether the rows of later steps have been."""
        self.torn_at: int | None = None
        """Bytes of whole lines, where a failed write left part of one behind them, to be cut off by the next."""
        self.waiting: list[Row] = []
        self.lost = 0
        self.untold: list[str] = []
        """Warnings that could not be written either."""
        try:
            self._drop()
        except OSError as error:
            self._warn_of(error)
        self.curves = (
            Curves(
                directory / "tensorboard", first_step, rows_after=self._rows_after, warn=self._warn, open_=open_writer
            )
            if tensorboard
            else None
        )

    def write(self, row: Row) -> None:
        """One row; numbers, also nested ones, become TensorBoard scalars."""
        self.waiting.append(_plain(row))
        if len(self.waiting) > MOST_WAITING:
            del self.waiting[0]
            self.lost += 1
        failing = len(self.waiting) > 1 or not self.dropped
        try:
            self._append()
        except OSError as error:
            if not failing:
                self._warn_of(error)
        if self.curves is not None:
            self.curves.write(row)
        if not self.waiting:
            self._tell()

    def close(self) -> None:
        """One last attempt for what waits; what cannot be written now is lost, and said to be."""
        try:
            self._append()
        except OSError as error:
            self.lost += len(self.waiting)
            self._warn(f"{self.lost} rows of {self.path} are lost: {error.strerror}")
        if self.curves is not None:
            self.curves.close()

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | types.TracebackType | None) -> None:
        self.close()

    def _drop(self) -> None:
        """Once: cut off the rows that are about to be computed again; raises OSError where that cannot be."""
        if not self.dropped and self.path.exists():
            os.truncate(self.path, _end_of_rows_until(self.path, self.first_step))
        self.dropped = True

    def _append(self) -> None:
        """Write all that waits; raises OSError where not all of it was written."""
        self._drop()
        if not self.waiting:
            return
        content = "".join(json.dumps(row, allow_nan=False) + "\n" for row in self.waiting).encode()
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            if self.torn_at is not None:
                os.ftruncate(descriptor, min(self.torn_at, os.fstat(descriptor).st_size))
            self.torn_at = os.fstat(descriptor).st_size
            left = memoryview(content)
            while left:
                left = left[os.write(descriptor, left) :]
            self.torn_at = None
        finally:
            os.close(descriptor)
        self.waiting.clear()

    def _rows_after(self, step: int) -> list[Row]:
        written = read_rows(self.directory) if self.dropped else []
        return [row for row in (*written, *self.waiting) if row["step"] > step]

    def _warn_of(self, error: OSError) -> None:
        self._warn(f"{self.path} cannot be written ({error.strerror}); its rows wait until it can")

    def _warn(self, message: str) -> None:
        self.untold.append(message)
        self._tell()

    def _tell(self) -> None:
        while self.untold and record_event(self.directory, "warning", message=self.untold[0]):
            del self.untold[0]


def read_rows(directory: Path) -> list[Row]:
    """The rows of a run so far; a last line torn by a kill is left out."""
    path = directory / "metrics.jsonl"
    lines = path.read_bytes().splitlines() if path.exists() else []
    return [row for row in map(_row, lines) if row is not None]


def last_step(directory: Path) -> int:
    """Of the run's rows so far; 0 where there is none."""
    return max((int(row["step"]) for row in read_rows(directory)), default=0)


def _row(line: bytes) -> Row | None:
    """None where the line is torn."""
    try:
        row: Row = json.loads(line)
    except ValueError:
        return None
    return row


def _end_of_rows_until(path: Path, step: int) -> int:
    """In bytes from the file's beginning: behind the last row of this step or an earlier one."""
    end = position = 0
    for line in path.read_bytes().splitlines(keepends=True):
        position += len(line)
        row = _row(line)
        if row is not None and line.endswith(b"\n") and row["step"] <= step:
            end = position
    return end


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinity: they become null; text loses its secrets."""
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, str):
        return redact(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value
