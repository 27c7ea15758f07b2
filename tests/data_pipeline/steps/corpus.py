"""Corpora of given texts, cleaned."""

import json
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from data_pipeline.prepare.executor import Executor, LocalExecutor
from data_pipeline.sources.document import Report
from data_pipeline.sources.files import FilesConfig
from data_pipeline.steps import Step
from data_pipeline.steps.cleaning import cleaned

STEPS = TypeAdapter(list[Step])


def files_of_lines(folder: Path, *files: list[str]) -> FilesConfig:
    """A document is a line; all of them are "train"."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, lines in enumerate(files):
        (folder / f"{number:03d}.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return FilesConfig(kind="files", directory=str(folder), train=["*.txt"], document="line", held_out=0)


def steps(*fields: dict[str, Any] | str) -> list[Step]:
    """Steps by their kind, or with other fields than the defaults."""
    return STEPS.validate_python([{"kind": one} if isinstance(one, str) else one for one in fields])


def clean(
    corpus: FilesConfig,
    chosen: list[Step],
    work_folder: Path,
    *,
    piece_bytes: int = 1 << 20,
    executor: Executor | None = None,
) -> tuple[list[str], dict[str, int]]:
    """The texts that stay, in order, and the report."""
    pieces = corpus.pieces(piece_bytes)
    with executor or LocalExecutor(1) as work:
        found = cleaned(corpus, chosen, pieces, work_folder=work_folder, executor=work, told=lambda *_: None)
    report = Report()
    texts = [document.text for piece in pieces for _, document in found.read(piece, report)]
    return texts, json.loads(json.dumps(report.counts, sort_keys=True))
