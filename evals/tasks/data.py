"""Where the files of tasks come from: a directory of the user's, or the Hugging Face hub through `datasets`."""

import gzip
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_pipeline.config import BadInput


class Missing(Exception):
    """There is no data for a task; the message says what was looked for, where, and how to get it."""


@dataclass(frozen=True)
class TaskData:
    """What a task read."""

    rows: Sequence[Any]
    files: Mapping[str, str]
    """Name -> SHA-256 of the (uncompressed) bytes."""
    notes: Mapping[str, Any] = field(default_factory=dict)
    """For the record: a round trip's verdict, lines skipped and why, ..."""


@dataclass(frozen=True)
class DataSource:
    """`directory` has a folder for each task; None: the hub."""

    directory: Path | None = None

    def read(
        self, task: str, names: Sequence[str], hub: Callable[[], Iterable[str]] | None = None
    ) -> tuple[str, str, str]:
        """The first of `names` (or with .gz) in the task's folder: its name, text, and SHA-256; else the hub's lines.

        Raises Missing where there is none of them, BadInput where it is empty or no UTF-8.
        """
        if self.directory is None:
            return self._from_hub(task, names, hub)
        folder = self.directory / task
        for name in names:
            for path in (folder / name, folder / f"{name}.gz"):
                if path.is_file():
                    return name, *_text(path)
        raise Missing(f"{task}: no {' or '.join(names)} (or .gz) in {folder}; put it there, or leave out --data-dir")

    def _from_hub(
        self, task: str, names: Sequence[str], hub: Callable[[], Iterable[str]] | None
    ) -> tuple[str, str, str]:
        if hub is None:
            raise Missing(f"{task}: the hub has it in no form that this task reads; give --data-dir with {names[0]}")
        try:
            text = "".join(hub())
        except Exception as error:  # of a library that raises many kinds when a network is missing
            reason = str(error).strip().partition("\n")[0]
            raise Missing(f"{task}: the hub did not give it ({reason}); give --data-dir with {names[0]}") from error
        return f"hub:{task}", text, hashlib.sha256(text.encode()).hexdigest()


def _text(path: Path) -> tuple[str, str]:
    """Text and SHA-256."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        text = content.decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read as UTF-8 text ({error})") from error
    if not text.strip():
        raise BadInput(f"{path}: is empty; a task needs at least one example")
    return text, hashlib.sha256(content).hexdigest()


def check_fields(row: Any, wanted: Mapping[str, type], place: str) -> None:
    """Raises BadInput unless `row` is an object with exactly these fields, of these types."""
    if not isinstance(row, dict):
        raise BadInput(f"{place}: must be an object with {', '.join(wanted)}, not {type(row).__name__}")
    unknown = sorted(set(row) - set(wanted))
    if unknown:
        raise BadInput(f"{place}: unknown field {unknown[0]!r}; the fields are {', '.join(wanted)}")
    for name, kind in wanted.items():
        if name not in row:
            raise BadInput(f"{place}: lacks {name}; the fields are {', '.join(wanted)}")
        if not isinstance(row[name], kind) or (kind is int and isinstance(row[name], bool)):
            raise BadInput(f"{place}: {name} is {row[name]!r}, must be of type {kind.__name__}")
