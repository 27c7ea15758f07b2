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
        self.directory, self.path = directory, directory / "metrics.jsonl"
        _drop_rows_after(self.path, first_step)
        self.length = self.path.stat().st_size if self.path.exists() else 0
        """Bytes of whole lines; what a failed write left behind is cut off by the next."""
        self.waiting: list[Row] = []
        self.lost = 0
        self.untold: list[str] = []
        """Warnings that could not be written either."""
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
        failing = len(self.waiting) > 1
        try:
            self._append()
        except OSError as error:
            if not failing:
                self._warn(f"{self.path} cannot be written ({error.strerror}); its rows wait until it can")
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

    def _append(self) -> None:
        """Write all that waits; raises OSError where not all of it was written."""
        if not self.waiting:
            return
        content = "".join(json.dumps(row, allow_nan=False) + "\n" for row in self.waiting).encode()
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            self.length = min(self.length, os.fstat(descriptor).st_size)
            os.ftruncate(descriptor, self.length)
            os.lseek(descriptor, self.length, os.SEEK_SET)
            left = memoryview(content)
            while left:
                left = left[os.write(descriptor, left) :]
        finally:
            os.close(descriptor)
        self.length += len(content)
        self.waiting.clear()

    def _rows_after(self, step: int) -> list[Row]:
        written = [row for row in read_rows(self.directory) if row["step"] > step]
        return [*written, *(row for row in self.waiting if row["step"] > step)]

    def _warn(self, message: str) -> None:
        self.untold.append(message)
        self._tell()

    def _tell(self) -> None:
        while self.untold and record_event(self.directory, "warning", message=self.untold[0]):
            del self.untold[0]


def read_rows(directory: Path) -> list[Row]:
    """The rows of a run so far; a last line torn by a kill is left out."""
    path = directory / "metrics.jsonl"
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def last_step(directory: Path) -> int:
    """Of the run's rows so far; 0 where there is none."""
    return max((int(row["step"]) for row in read_rows(directory)), default=0)


def _drop_rows_after(path: Path, step: int) -> None:
    if not path.exists():
        return
    kept = [row for row in read_rows(path.parent) if row["step"] <= step]
    temporary = path.with_suffix(".jsonl.partial")
    temporary.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
    os.replace(temporary, path)


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinity: they become null; text loses its secrets."""
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, str):
        return redact(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value
