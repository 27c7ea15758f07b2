"""Documents that share a run of n words with evaluation files are dropped.

Brown et al. 2020, arXiv 2005.14165, appendix C. As there, words are in lower case and without punctuation, n is 13, and
a run that is in more than ten documents of the corpus is taken for a phrase, not for a leak. Unlike there, the whole
document is dropped, not the run with 200 characters around it.
"""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field

from data_pipeline.arrays import load_array, npy_bytes
from data_pipeline.atomic import write_atomically
from data_pipeline.config import BadInput
from data_pipeline.steps.evaluation_files import PLACE, evaluation_files, texts_of
from data_pipeline.steps.step import CorpusStep, Signatures
from data_pipeline.steps.words import text_runs

if TYPE_CHECKING:
    from data_pipeline.prepare.executor import Executor

TABLE = "evaluation.npy"
"""[runs] uint64 in ascending order: the hash of every run of words of the evaluation files."""


class DecontaminateConfig(CorpusStep):
    """By hashes of 64 bits: with 10^8 runs of evaluation files, one in 10^11 runs of the corpus is taken for one."""

    reason: ClassVar[str] = "evaluation_text"

    kind: Literal["decontaminate"]
    directory: str
    """Where the evaluation files are."""
    evaluation: tuple[str, ...] = Field(min_length=1)
    """Paths or globs in it of .txt, .json and .jsonl files, also with .gz or .zst."""
    fields: tuple[str, ...] = ()
    """Of JSON: whose strings are evaluation texts; none: all strings."""
    words: int = Field(default=13, ge=1)
    """In a run. Evaluation texts with fewer words cannot be found."""
    most_documents: int = Field(default=10, ge=0)
    """A run that more documents of the corpus have is not used."""

    def files(self) -> list[Path]:
        return evaluation_files(self.directory, self.evaluation)

    def start(self, folder: Path) -> str:
        runs = [np.zeros(0, dtype=np.uint64)]
        for path in self.files():
            found = [np.unique(part) for text in texts_of(path, self.fields) for part in text_runs(text, self.words)]
            if not found:
                raise BadInput(f"{PLACE}: {path}: no text has {self.words} words; lower words, or leave the file out")
            runs.append(np.unique(np.concatenate(found)))
        data = npy_bytes(np.unique(np.concatenate(runs)))
        write_atomically(folder / TABLE, data)
        return hashlib.sha256(data).hexdigest()

    def collector(self, folder: Path) -> "SharedRuns":
        return SharedRuns(folder / TABLE, self.words)

    def resolve(self, signatures: Signatures, executor: "Executor") -> np.ndarray:
        table = load_array(signatures.folder / TABLE)
        counts = np.zeros(len(table), dtype=np.int64)
        for runs in signatures.arrays("runs"):
            np.add.at(counts, runs, 1)
        used = counts <= self.most_documents
        dropped = np.zeros(signatures.num_documents, dtype=bool)
        offsets = signatures.listing.offsets
        pieces = zip(signatures.arrays("positions"), signatures.arrays("runs"), offsets, strict=False)
        for positions, runs, offset in pieces:
            dropped[offset + positions[used[runs]].astype(np.int64)] = True
        return dropped


class SharedRuns:
    """Which runs of the table each document has, each once."""

    def __init__(self, table: Path, words: int) -> None:
        self._table, self._words = np.asarray(load_array(table)), words
        self._positions: list[np.ndarray] = []
        self._runs: list[np.ndarray] = []

    def add(self, position: int, text: str) -> None:
        found = [self._places(runs) for runs in text_runs(text, self._words)]
        shared = np.unique(np.concatenate(found)) if found else np.zeros(0, dtype=np.uint32)
        if len(shared):
            self._runs.append(shared)
            self._positions.append(np.full(len(shared), position, dtype=np.uint32))

    def arrays(self) -> dict[str, np.ndarray]:
        nothing = [np.zeros(0, dtype=np.uint32)]
        return {
            "positions": np.concatenate(nothing + self._positions),
            "runs": np.concatenate(nothing + self._runs),
        }

    def _places(self, runs: np.ndarray) -> np.ndarray:
        places = np.searchsorted(self._table, runs)
        places[places == len(self._table)] = 0
        return places[self._table[places] == runs].astype(np.uint32)
