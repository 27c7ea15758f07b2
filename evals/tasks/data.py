"""Where the files of tasks come from: a directory of the user's, or the Hugging Face hub through `datasets`."""

import gzip
import hashlib
import json
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_pipeline.config import BadInput

HUB = "hub:"
"""Begins the name of what was read from there."""


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
        self,
        task: str,
        names: Sequence[str],
        hub: Callable[[], Iterable[str]] | None = None,
        *,
        folder: str | None = None,
    ) -> tuple[str, str, str]:
        """The first of `names` (or with .gz) in the task's folder: its name, text, and SHA-256; else the hub's lines.

        `folder` is the task's name where it has none of its own. Raises Missing where there is none of them, BadInput
        where it is empty or no UTF-8.
        """
        name, content, digest = self.read_bytes(task, names, hub, folder=folder)
        try:
            return name, content.decode("utf-8"), digest
        except UnicodeDecodeError as error:
            raise BadInput(f"{place_of(folder or task, name)}: cannot be read as UTF-8 text ({error})") from error

    def read_bytes(
        self,
        task: str,
        names: Sequence[str],
        hub: Callable[[], Iterable[str]] | None = None,
        *,
        folder: str | None = None,
    ) -> tuple[str, bytes, str]:
        """As `read`, not decoded."""
        folder = folder or task
        if self.directory is None:
            name, content = f"{HUB}{folder}", self._from_hub(task, names, hub)
        else:
            name, content = self._from_folder(task, names, self.directory / folder)
        if not content.strip():
            raise BadInput(f"{place_of(folder, name)}: is empty; a task needs at least one example")
        return name, content, hashlib.sha256(content).hexdigest()

    def _from_folder(self, task: str, names: Sequence[str], folder: Path) -> tuple[str, bytes]:
        for name in names:
            for path in (folder / name, folder / f"{name}.gz"):
                if path.is_file():
                    try:
                        return name, gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
                    except (OSError, EOFError, zlib.error) as error:
                        raise BadInput(f"{path}: cannot be read ({error})") from error
        raise Missing(f"{task}: no {' or '.join(names)} (or .gz) in {folder}; put it there, or leave out --data-dir")

    def _from_hub(self, task: str, names: Sequence[str], hub: Callable[[], Iterable[str]] | None) -> bytes:
        if hub is None:
            raise Missing(f"{task}: the hub has it in no form that this task reads; give --data-dir with {names[0]}")
        try:
            return "".join(hub()).encode()
        except Exception as error:  # of a library that raises many kinds when a network is missing
            if isinstance(error, ConnectionError):
                _stay_offline()
            reason = f"{type(error).__name__}: {error}".strip().partition("\n")[0]
            raise Missing(f"{task}: the hub did not give it ({reason}); give --data-dir with {names[0]}") from error


def _stay_offline() -> None:
    """The hub cannot be reached: look for what comes next among what was downloaded, without minutes of retries."""
    for library in ("huggingface_hub.constants", "datasets.config"):
        if library in sys.modules:
            sys.modules[library].HF_HUB_OFFLINE = True  # type: ignore[attr-defined]


def place_of(folder: str, name: str) -> str:
    """How messages name a file that was read: with its folder, as `--data-dir` has it."""
    return name if name.startswith(HUB) else f"{folder}/{name}"


def lines_of(text: str, name: str) -> Iterator[tuple[str, str]]:
    """Each line with its place, `name:number`. Only a newline ends a line; the last need not have one."""
    for number, line in enumerate(text.removesuffix("\n").split("\n"), start=1):
        yield f"{name}:{number}", line


def json_rows(
    text: str, name: str, wanted: Mapping[str, type], optional: Mapping[str, type] | None = None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each line of a JSON Lines file with its place, its fields checked; raises BadInput."""
    for place, line in lines_of(text, name):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BadInput(f"{place}: is no JSON ({error})") from error
        check_fields(row, wanted, place, optional)
        _check_characters(row, place)
        yield place, row


def _check_characters(row: Mapping[str, Any], place: str) -> None:
    """Raises BadInput where a field has half a character (a surrogate alone), which no text can hold."""
    for name, value in row.items():
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            half = ascii(error.object[error.start])
            raise BadInput(f"{place}: {name} has {half}, half of a character; write the whole of it") from error


def check_fields(row: Any, wanted: Mapping[str, type], place: str, optional: Mapping[str, type] | None = None) -> None:
    """Raises BadInput unless `row` is an object with these fields, of these types, and no others but `optional`."""
    known = {**wanted, **(optional or {})}
    if not isinstance(row, dict):
        raise BadInput(f"{place}: must be an object with {', '.join(wanted)}, not {type(row).__name__}")
    unknown = sorted(set(row) - set(known))
    if unknown:
        raise BadInput(f"{place}: unknown field {unknown[0]!r}; the fields are {', '.join(known)}")
    for name, kind in known.items():
        if name not in row:
            if name in wanted:
                raise BadInput(f"{place}: lacks {name}; the fields are {', '.join(known)}")
        elif not isinstance(row[name], kind) or (kind is int and isinstance(row[name], bool)):
            raise BadInput(f"{place}: {name} is {row[name]!r}, must be of type {kind.__name__}")


def check_options(options: Sequence[Any], label: int, place: str, count: int | None = None) -> None:
    """Raises BadInput unless the options are non-empty texts, `count` of them if given, and `label` is the place of
    one."""
    if count is not None and len(options) != count:
        raise BadInput(f"{place}: options are {len(options)}, must be {count}")
    if len(options) < 2:
        raise BadInput(f"{place}: options are {len(options)}, must be at least 2")
    for option in options:
        if not isinstance(option, str) or not option.strip():
            raise BadInput(f"{place}: options has {option!r}, must be texts that are not empty")
    if not 0 <= label < len(options):
        raise BadInput(
            f"{place}: label is {label}, must be from 0 to {len(options) - 1}, the place of the right option"
        )
