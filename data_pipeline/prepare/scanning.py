"""What is in a piece of the corpus: counted in one pass, and kept, so that a later run need not read it again."""

import hashlib
import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import Field, ValidationError

from data_pipeline.atomic import write_atomically
from data_pipeline.config import Config
from data_pipeline.manifest import FORMAT_VERSION
from data_pipeline.mixing import fraction_of
from data_pipeline.prepare.directory import WORK_FOLDER
from data_pipeline.prepare.document_parts import documents_of
from data_pipeline.sources import Corpus
from data_pipeline.sources.document import LONGEST_NAME, MOST_NAMED, Document, LeftOut, Piece, Report, Split
from data_pipeline.steps.cleaned_corpus import CleanedCorpus
from data_pipeline.tokenizers.tokenizer import Counted

"""In the directory of the shards: what a later run needs to go on."""


@dataclass(frozen=True, slots=True)
class ScanTask:
    """A piece, and what is wanted to know of it."""

    corpus: Corpus | CleanedCorpus
    piece: Piece
    number: int
    directory: Path
    sample_bytes: int = 0
    counts: Counted | None = None

    @property
    def record_path(self) -> Path:
        return self.directory / WORK_FOLDER / f"scan-{self.number:05d}.json"

    def key(self, stamp: str) -> str:
        """Of all that decides what the scan finds."""
        parts = (FORMAT_VERSION, asdict(self.piece), stamp, self.sample_bytes, self.counts, MOST_NAMED, LONGEST_NAME)
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


class Scan(Config):
    """What is in a piece."""

    content: str
    """SHA-256 over the ids, splits and texts of its documents."""
    documents: dict[Split, int]
    """How many."""
    num_bytes: int
    report: dict[str, int]
    left_out: list[LeftOut] = Field(default=[])
    """The first of each reason in the report."""
    sample: list[tuple[float, int]] = Field(default=[])
    """(priority, bytes) of the train documents that may be in the sample, the first ones first."""
    counts: dict[str, int] = Field(default={})
    """Of words or characters of the train split, where they are wanted."""

    @property
    def num_documents(self) -> int:
        """Of all splits."""
        return sum(self.documents.values())


class KeptScan(Config):
    """A scan as it is stored."""

    key: str
    scan: Scan


class Scanner:
    """Takes in the documents of a piece in order."""

    def __init__(self, task: ScanTask) -> None:
        self._task, self._digest = task, hashlib.sha256()
        self._documents: Counter[Split] = Counter()
        self._num_bytes = 0
        self._sample: list[tuple[float, int]] = []
        self._sample_bytes = 0
        self._counts: Counter[str] = Counter()
        self.report = Report()
        self.num_documents = 0
        """And parts of documents, so far."""

    @property
    def content(self) -> str:
        """SHA-256 over the ids, splits and texts so far."""
        return self._digest.hexdigest()

    def add(self, split: Split, document: Document) -> None:
        """The next one."""
        self._digest.update(f"{split}\0{document.id}\0{document.num_bytes}\0".encode())
        self._digest.update(document.text.encode())
        self.num_documents += 1
        self._documents[split] += not document.continues
        self._num_bytes += document.num_bytes
        if split == "train" and self._task.sample_bytes:
            self._sample.append((priority(document.id), document.num_bytes))
            self._sample_bytes += document.num_bytes
            if self._sample_bytes > 4 * self._task.sample_bytes:  # most of many short ones are not in it
                self._sample = first_of(self._sample, self._task.sample_bytes)
                self._sample_bytes = sum(size for _, size in self._sample)
        if split == "train" and self._task.counts:
            self._counts.update(document.text.split() if self._task.counts == "words" else document.text)

    def finish(self) -> Scan:
        """What they were."""
        return Scan(
            content=self.content,
            documents=dict(self._documents),
            num_bytes=self._num_bytes,
            report=dict(self.report.counts),
            left_out=self.report.named,
            sample=first_of(self._sample, self._task.sample_bytes),
            counts=dict(self._counts),
        )


def scan(task: ScanTask) -> Scan:
    """Reads a piece once, unless an earlier run has, and the files have not changed since."""
    stamp = task.corpus.stamp(task.piece)
    known = kept_scan(task, stamp)
    if known is not None:
        return known
    scanner = Scanner(task)
    for split, document in documents_of(task.corpus, task.piece, scanner.report):
        scanner.add(split, document)
    found = scanner.finish()
    keep(task, found, stamp)
    return found


def kept_scan(task: ScanTask, stamp: str | None) -> Scan | None:
    """What an earlier run found in the piece as it is now."""
    if stamp is None:
        return None
    try:
        kept = KeptScan.model_validate_json(task.record_path.read_bytes())
    except (OSError, ValidationError):
        return None
    return kept.scan if kept.key == task.key(stamp) else None


def keep(task: ScanTask, found: Scan, stamp: str | None) -> None:
    """For a later run, if the files can be seen not to have changed since before they were read."""
    if stamp is not None and task.corpus.stamp(task.piece) == stamp:
        kept = KeptScan(key=task.key(stamp), scan=found)
        write_atomically(task.record_path, kept.model_dump_json().encode())


def first_of(candidates: list[tuple[float, int]], wanted_bytes: int) -> list[tuple[float, int]]:
    """The candidates of lowest priority number, until they have the wanted bytes."""
    chosen: list[tuple[float, int]] = []
    total = 0
    for candidate in sorted(candidates):
        if total >= wanted_bytes:
            break
        chosen.append(candidate)
        total += candidate[1]
    return chosen


def priority(document_id: str) -> float:
    """A document's fixed place in the order in which the sample is filled; independent of its split."""
    return fraction_of(f"sample/{document_id}")
