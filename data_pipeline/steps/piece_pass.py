"""What a worker does with one piece in one pass: document steps, their verdicts, and signatures for a corpus step."""

import hashlib
import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from data_pipeline.arrays import array_path, load_array, npy_bytes
from data_pipeline.atomic import sha256_of, write_atomically
from data_pipeline.config import Config
from data_pipeline.sources.document import CorpusConfig, Document, Piece, Report
from data_pipeline.steps import Step
from data_pipeline.steps.chain import Pass, chain
from data_pipeline.steps.raw_content import RawContent, changed
from data_pipeline.stored_files import FileRecord

VERSION = 2
"""Of what steps do and write: raised when the same settings come to drop or alter otherwise."""

CODES = "codes"
"""[documents of the piece] uint16: the verdicts of document steps up to the end of a pass."""
RESOLVED = "resolved"
"""The same with those of the pass's corpus step."""


def piece_name(piece: Piece) -> str:
    """Of the files about a piece: by what is in it, not by its number, so that who reads it needs no list."""
    return hashlib.sha256(json.dumps(asdict(piece), sort_keys=True).encode()).hexdigest()[:24]


@dataclass(frozen=True, slots=True)
class PassTask:
    """One piece in one pass."""

    corpus: CorpusConfig
    piece: Piece
    steps: tuple[Step, ...]
    part: Pass
    folder: Path
    settings: str
    """A hash of everything else that decides the outcome but the piece's content and the verdicts before."""
    before: Path | None
    """The verdicts of the pass before."""
    content: str | None
    """What the pass before found in the piece."""

    @property
    def record_path(self) -> Path:
        return self.folder / f"{piece_name(self.piece)}.json"


class PassRecord(Config):
    """What a pass found in a piece, and what it was made of."""

    settings: str
    before: str | None
    """SHA-256 of the verdicts of the pass before."""
    content: str
    num_documents: int
    num_bytes: int
    files: dict[str, FileRecord]


def run_pass(task: PassTask) -> PassRecord:
    """Reads a piece and writes its arrays, the record last; what an earlier run finished is kept if it still is true.

    BadInput if the piece is no longer what the pass before read, or the folder cannot be written.
    """
    before = None if task.before is None else sha256_of(task.before)
    kept = _finished(task, before)
    if kept is not None:
        return kept
    name, raw = piece_name(task.piece), RawContent(task.corpus, task.piece)
    contents = {kind: npy_bytes(array) for kind, array in _arrays(task, raw).items()}
    if task.content is not None:
        raw.check(task.content)
    for kind, data in contents.items():
        write_atomically(array_path(task.folder, name, kind), data)
    record = PassRecord(
        settings=task.settings,
        before=before,
        content=raw.hash,
        num_documents=raw.num_documents,
        num_bytes=raw.num_bytes,
        files={kind: FileRecord.of(data) for kind, data in contents.items()},
    )
    write_atomically(task.record_path, record.model_dump_json(indent=1).encode())
    return record


def _arrays(task: PassTask, raw: RawContent) -> dict[str, np.ndarray]:
    work = chain(task.steps, task.part.start, task.part.stop)
    collector = task.part.corpus_step.collector(task.folder) if task.part.corpus_step else None
    before = None if task.before is None else load_array(task.before)
    codes: list[int] = []
    for position, (_, document) in enumerate(raw.read(Report())):
        if before is not None and position >= len(before):
            raise changed(task.piece)
        outcome: Document | int = document if before is None or not before[position] else int(before[position])
        if not isinstance(outcome, int):
            outcome = work.apply(document, Counter())
        if isinstance(outcome, int):
            codes.append(outcome)
            continue
        codes.append(0)
        if collector is not None:
            collector.add(position, outcome.text)
    return {CODES: np.array(codes, dtype=np.uint16), **(collector.arrays() if collector is not None else {})}


def _finished(task: PassTask, before: str | None) -> PassRecord | None:
    """What an earlier run found, if its files and the piece still are what they were."""
    try:
        record = PassRecord.model_validate_json(task.record_path.read_bytes())
        whole = all(
            file.problem(array_path(task.folder, piece_name(task.piece), kind)) is None
            for kind, file in record.files.items()
        )
    except (OSError, ValidationError):
        return None
    if not whole or (record.settings, record.before) != (task.settings, before):
        return None
    return record if record.content == (task.content or _content(task)) else None


def _content(task: PassTask) -> str:
    raw = RawContent(task.corpus, task.piece)
    for _ in raw.read(Report()):
        pass
    return raw.hash


@dataclass(frozen=True, slots=True)
class ResolveTask:
    """The verdicts of a corpus step on one piece."""

    folder: Path
    name: str
    dropped: np.ndarray
    """Positions in the piece."""
    code: int


def write_resolved(task: ResolveTask) -> str:
    """Writes the piece's verdicts up to and with the corpus step; the file's SHA-256."""
    codes = np.array(load_array(array_path(task.folder, task.name, CODES)))
    codes[task.dropped] = task.code
    data = npy_bytes(codes)
    write_atomically(array_path(task.folder, task.name, RESOLVED), data)
    return hashlib.sha256(data).hexdigest()
