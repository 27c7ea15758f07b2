"""The texts of evaluation files: .txt (one text) and .jsonl or .json (each string in it), plain, .gz or .zst."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_pipeline.archives.decompression import DAMAGE, ExpandsTooFar, decompressed
from data_pipeline.config import BadInput
from data_pipeline.sources.folder import LocalFolder

MOST_BYTES = 1 << 30
"""Of one file, uncompressed."""

PLACE = "data.steps decontaminate"


def evaluation_files(directory: str, patterns: tuple[str, ...]) -> list[Path]:
    """The files that the patterns name, by path; BadInput for one that names none, or a file of another kind."""
    base, chosen = Path(directory), set[Path]()
    for pattern in patterns:
        found = [base / name for name in LocalFolder(base).matching(pattern)]
        if not found:
            raise BadInput(f"{PLACE}: files {pattern}: no such file in {directory}; correct the path or glob")
        chosen.update(found)
    for path in chosen:
        if _format(path) not in (".txt", ".jsonl", ".json"):
            raise BadInput(
                f"{PLACE}: files {path.name}: must end in .txt, .jsonl or .json, with .gz or .zst behind it or not; "
                "convert the file"
            )
    return sorted(chosen)


def texts_of(path: Path, fields: tuple[str, ...]) -> Iterator[str]:
    """Every text of a file; of JSON every string, or those of the fields. BadInput if it cannot be read or is empty."""
    content = _content(path)
    if not content.strip():
        raise BadInput(f"{PLACE}: {path}: is empty; give the evaluation file, or leave it out")
    if _format(path) == ".txt":
        yield content
        return
    found = False
    for text in _strings(path, content, fields):
        found = True
        yield text
    if not found:
        wanted = f"in the fields {', '.join(fields)}" if fields else "in it"
        raise BadInput(f"{PLACE}: {path}: there is no string {wanted}; correct fields")


def _format(path: Path) -> str:
    return Path(path.stem).suffix if path.suffix in (".gz", ".zst") else path.suffix


def _content(path: Path) -> str:
    try:
        with path.open("rb") as file, decompressed(file, path.name) as plain:
            data = plain.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise BadInput(f"{PLACE}: {path}: has more than {MOST_BYTES} bytes of text; split the file")
        return data.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError, ExpandsTooFar, *DAMAGE) as error:
        raise BadInput(f"{PLACE}: {path}: cannot be read ({error}); repair the file or leave it out") from error


def _strings(path: Path, content: str, fields: tuple[str, ...]) -> Iterator[str]:
    lines = content.split("\n") if _format(path) == ".jsonl" else [content]
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                record = json.loads(line)
            except ValueError as error:
                place = f"{path}:{number}" if len(lines) > 1 else str(path)
                raise BadInput(f"{PLACE}: {place}: is not JSON ({error}); repair the file or leave it out") from error
            yield from _strings_in(record, fields)


def _strings_in(value: Any, fields: tuple[str, ...], *, wanted: bool = False) -> Iterator[str]:
    if isinstance(value, str):
        if wanted or not fields:
            yield value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _strings_in(inner, fields, wanted=wanted or name in fields)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings_in(inner, fields, wanted=wanted)
