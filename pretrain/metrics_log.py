"""metrics.jsonl and TensorBoard: every step of a run, one line each, no step twice."""

import json
import math
import os
import types
from pathlib import Path
from typing import Any

from data_pipeline.config import BadInput


class MetricsLog:
    """Appends rows; opened at a step, it first drops the rows of later steps, which are about to be computed again."""

    def __init__(self, directory: Path, *, first_step: int, tensorboard: bool) -> None:
        self.path = directory / "metrics.jsonl"
        _drop_rows_after(self.path, first_step)
        self.file = self.path.open("a", encoding="utf-8")
        self.writer = _tensorboard(directory / "tensorboard", first_step) if tensorboard else None

    def write(self, row: dict[str, Any]) -> None:
        """One row; numbers, also nested ones, become TensorBoard scalars."""
        self.file.write(json.dumps(_finite(row), allow_nan=False) + "\n")
        self.file.flush()
        if self.writer is not None:
            for name, value in _scalars(row):
                self.writer.add_scalar(name, value, row["step"])

    def close(self) -> None:
        self.file.close()
        if self.writer is not None:
            self.writer.close()

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | types.TracebackType | None) -> None:
        self.close()


def read_rows(directory: Path) -> list[dict[str, Any]]:
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


def _tensorboard(directory: Path, first_step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise BadInput(
            "log.tensorboard is true, but tensorboard is not installed: pip install 'segue[trackers]', "
            "or set log.tensorboard=false"
        ) from error
    return SummaryWriter(str(directory), purge_step=first_step + 1)


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: they become null."""
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _scalars(row: dict[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    found = []
    for name, value in row.items():
        if isinstance(value, dict):
            found += _scalars(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and not isinstance(value, bool) and name != "step":
            found.append((f"{prefix}{name}", float(value)))
    return found
