"""The passes over a corpus that its steps need, before anything is tokenized.

For every pass a folder in the work folder, resumable piece by piece:

NUMBER-KIND/PIECE.json        what was read, and the hashes of the arrays
NUMBER-KIND/PIECE.codes.npy   the verdicts of document steps
NUMBER-KIND/PIECE.X.npy       signatures for the corpus step
NUMBER-KIND/listing.json      all pieces, in order
NUMBER-KIND/PIECE.resolved.npy, resolved.json   the verdicts with the corpus step's, and what they were made of
"""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data_pipeline.arrays import array_path, load_array
from data_pipeline.atomic import sha256_of, write_atomically
from data_pipeline.config import BadInput
from data_pipeline.sources.document import CorpusConfig, Piece
from data_pipeline.steps import Step
from data_pipeline.steps.chain import Pass, code_counts, first_code, passes
from data_pipeline.steps.cleaned_corpus import CleanedCorpus
from data_pipeline.steps.piece_pass import (
    CODES,
    RESOLVED,
    VERSION,
    PassRecord,
    PassTask,
    ResolveTask,
    piece_name,
    run_pass,
    write_resolved,
)
from data_pipeline.steps.step import LISTING_FILE, CorpusStep, Listing, Signatures

if TYPE_CHECKING:
    from data_pipeline.prepare.executor import Executor

FOLDER = "steps"
RESOLVED_FILE = "resolved.json"

Told = Callable[[int, int, int, int], None]
"""How far it is: pieces done, of how many (each counts once a pass); documents and bytes of text read so far."""


def identity_of(steps: Sequence[Step]) -> dict[str, Any]:
    """What decides the outcome, by place and kind, but for where evaluation files lie."""
    return {
        f"{place} {step.kind}": step.model_dump(mode="json", exclude={"directory", "kind"})
        for place, step in enumerate(steps)
    }


def files_of(steps: Sequence[Step]) -> list[tuple[str, str]]:
    """Names and SHA-256 of the files that steps read besides the corpus; BadInput if one cannot be used."""
    paths = [path for step in steps if isinstance(step, CorpusStep) for path in step.files()]
    try:
        return [(path.name, sha256_of(path)) for path in paths]
    except OSError as error:
        raise BadInput(f"data.steps: {error.filename} cannot be read ({error}); repair it or leave it out") from error


def cleaned(
    corpus: CorpusConfig,
    steps: Sequence[Step],
    pieces: Sequence[Piece],
    *,
    work_folder: Path,
    executor: "Executor",
    told: Told,
) -> CleanedCorpus:
    """The corpus as the steps leave it, after the passes that they need.

    BadInput if a step cannot be done, the corpus changes meanwhile, or nothing is left of it.
    """
    cleaning = _Cleaning(corpus.located(), tuple(steps), tuple(pieces), work_folder / FOLDER, executor, told)
    return cleaning.run()


def forget(work_folder: Path) -> None:
    """Removes what passes left: signatures of a large corpus are large."""
    shutil.rmtree(work_folder / FOLDER, ignore_errors=True)


@dataclass(slots=True)
class _Cleaning:
    corpus: CorpusConfig
    steps: tuple[Step, ...]
    pieces: tuple[Piece, ...]
    folder: Path
    executor: "Executor"
    told: Told
    num_documents: int = 0
    num_bytes: int = 0

    def run(self) -> CleanedCorpus:
        names = [piece_name(piece) for piece in self.pieces]
        if len(set(names)) < len(names):
            raise BadInput("corpus: the same part of a file is read twice; name it once")
        known, folder, kind = 0, None, CODES
        contents: list[str | None] = [None] * len(names)
        parts = passes(self.steps)
        for number, part in enumerate(parts):
            before = [None if folder is None else array_path(folder, name, kind) for name in names]
            folder = self.folder / f"{number}-{self.steps[part.stop].kind if part.corpus_step else 'documents'}"
            records = self._pass(part, folder, before, contents, number, len(parts))
            contents = [record.content for record in records]
            known = part.stop
            kind = CODES
            if part.corpus_step is not None:
                self._resolve(part, part.corpus_step, folder, names, records)
                known, kind = part.stop + 1, RESOLVED
            self._check_something_is_left(folder, names, kind)
        return CleanedCorpus(self.corpus, self.steps, known, folder, kind)

    def _pass(
        self,
        part: Pass,
        folder: Path,
        before: Sequence[Path | None],
        contents: Sequence[str | None],
        number: int,
        num_passes: int,
    ) -> list[PassRecord]:
        settings = self._settings(part, folder)
        tasks = [
            PassTask(self.corpus, piece, self.steps, part, folder, settings, path, content)
            for piece, path, content in zip(self.pieces, before, contents, strict=True)
        ]
        records: list[PassRecord] = []
        for record in self.executor.map(run_pass, tasks):
            records.append(record)
            self.num_documents += record.num_documents
            self.num_bytes += record.num_bytes
            done = number * len(tasks) + len(records)
            self.told(done, num_passes * len(tasks), self.num_documents, self.num_bytes)
        return records

    def _settings(self, part: Pass, folder: Path) -> str:
        table = part.corpus_step.start(folder) if part.corpus_step else ""
        done = identity_of(self.steps[: part.stop + 1])
        return hashlib.sha256(json.dumps([VERSION, done, table], sort_keys=True).encode()).hexdigest()

    def _resolve(
        self, part: Pass, step: CorpusStep, folder: Path, names: Sequence[str], records: Sequence[PassRecord]
    ) -> None:
        key = hashlib.sha256("".join(record.model_dump_json() for record in records).encode()).hexdigest()
        if _is_resolved(folder, names, key):
            return
        offsets = np.cumsum([0, *(record.num_documents for record in records)]).tolist()
        listing = Listing(names=tuple(names), offsets=tuple(offsets))
        write_atomically(folder / LISTING_FILE, listing.model_dump_json().encode())
        dropped = step.resolve(Signatures(folder), self.executor)
        code = first_code(self.steps, part.stop)
        tasks = [
            ResolveTask(folder, name, np.flatnonzero(dropped[start:stop]), code)
            for name, start, stop in zip(names, offsets, offsets[1:], strict=False)
        ]
        hashes = list(self.executor.map(write_resolved, tasks))
        write_atomically(folder / RESOLVED_FILE, json.dumps({"key": key, "sha256": hashes}).encode())

    def _check_something_is_left(self, folder: Path, names: Sequence[str], kind: str) -> None:
        counts = sum((code_counts(self.steps, codes) for codes in _arrays(folder, names, kind)), Counter[str]())
        left = sum(int((codes == 0).sum()) for codes in _arrays(folder, names, kind))
        if counts and not left:
            reasons = ", ".join(f"{count} {reason}" for reason, count in counts.most_common())
            raise BadInput(
                f"data.steps: all {counts.total()} documents were dropped ({reasons}); loosen the bounds of these "
                "steps, or leave them out"
            )


def _arrays(folder: Path, names: Sequence[str], kind: str) -> Iterator[np.ndarray]:
    return (load_array(array_path(folder, name, kind)) for name in names)


def _is_resolved(folder: Path, names: Sequence[str], key: str) -> bool:
    try:
        record = json.loads((folder / RESOLVED_FILE).read_bytes())
        found = [sha256_of(array_path(folder, name, RESOLVED)) for name in names]
    except (OSError, ValueError):
        return False
    return bool(record == {"key": key, "sha256": found})
