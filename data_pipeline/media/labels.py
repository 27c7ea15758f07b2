"""What is told of an item beside its content: from its name, its folder, a table, or an array of labels."""

import csv
import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from data_pipeline.config import BadInput, Config
from data_pipeline.media.item import Entry, Unfit


class PatternLabels(Config):
    """The named groups of a regular expression that is searched for in an item's name."""

    kind: Literal["pattern"]
    pattern: str
    field: str = "label"
    """The group that is the class."""

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        return checked_pattern(pattern)

    def fields_of(self, entry: Entry, directory: str) -> dict[str, str]:
        found = re.search(self.pattern, entry.name)
        if found is None:
            raise Unfit("no_label", f"its name does not match corpus.labels.pattern {self.pattern}")
        return {name: value for name, value in found.groupdict().items() if value is not None}


class FolderLabels(Config):
    """The name of the folder that an item lies in."""

    kind: Literal["folder"]
    field: Literal["label"] = "label"

    def fields_of(self, entry: Entry, directory: str) -> dict[str, str]:
        folders = entry.name.split("/")[:-1]
        if not folders:
            raise Unfit("no_label", "it lies in no folder below corpus.directory, whose name would be its label")
        return {"label": folders[-1]}


class TableLabels(Config):
    """Columns of a .csv (with a header) or .jsonl file, found by an item's name."""

    kind: Literal["table"]
    file: str
    """Below corpus.directory."""
    key: str = "file"
    """The column that has the names."""
    field: str = "label"
    """The column that is the class; all columns are stored."""

    def fields_of(self, entry: Entry, directory: str) -> dict[str, str]:
        rows = _rows_of(Path(directory, self.file), self.key)
        if entry.name not in rows:
            raise Unfit("no_label", f"corpus.labels.file {self.file} has no row with the {self.key} {entry.name}")
        return rows[entry.name]


class ArrayLabels(Config):
    """Those beside an array of images: the labels-idx1-ubyte of an images-idx3-ubyte, or an array of the same .npz."""

    kind: Literal["arrays"]
    array: str = "labels"
    """Of an .npz."""
    field: Literal["label"] = "label"

    def fields_of(self, entry: Entry, directory: str) -> dict[str, str]:
        if "label" not in entry.fields:
            raise Unfit("no_label", "it is no row of an IDX file or an .npz, where corpus.labels.kind is arrays")
        return entry.fields


Labels = Annotated[PatternLabels | FolderLabels | TableLabels | ArrayLabels, Field(discriminator="kind")]


def checked_pattern(pattern: str) -> str:
    """The pattern; ValueError where it is no regular expression."""
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern}: no regular expression ({error})") from error
    return pattern


def _rows_of(path: Path, key: str) -> dict[str, dict[str, str]]:
    """As `_table`, read once for as long as the file stays the same."""
    try:
        status = path.stat()
    except OSError as error:
        raise BadInput(
            f"corpus.labels.file {path}: cannot be read ({error.strerror}); give a .csv or .jsonl"
        ) from error
    return _table(path, key, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=4)
def _table(path: Path, key: str, size: int, changed: int) -> dict[str, dict[str, str]]:
    """Key -> all columns of its row; BadInput where the file is no such table or names something twice."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        rows = _json_rows(text) if path.suffix == ".jsonl" else list(csv.DictReader(text.splitlines(), strict=True))
    except (OSError, ValueError, csv.Error) as error:
        raise BadInput(
            f"corpus.labels.file {path}: cannot be read ({error}); give a .csv or .jsonl in UTF-8"
        ) from error
    found: dict[str, dict[str, str]] = {}
    for number, row in enumerate(rows, 1):
        if row.get(key) is None:
            raise BadInput(
                f"corpus.labels.file {path}: row {number} has no {key}; name the column in corpus.labels.key"
            )
        if row[key] in found:
            raise BadInput(f"corpus.labels.file {path}: {row[key]} has two rows, the second is {number}; remove one")
        found[row[key]] = {str(name): str(value) for name, value in row.items() if value is not None}
    return found


def _json_rows(text: str) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in text.splitlines() if line.strip()]
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise ValueError(f"row {number} is no object")
    return rows
