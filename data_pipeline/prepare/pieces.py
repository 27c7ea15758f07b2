"""What a worker does with one piece of the corpus: scan it, give its share of the sample, encode it.

Each is a function of its argument and of files, so that any worker can do it, and do it again.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from pydantic import ValidationError

from data_pipeline.atomic import sha256_of, write_atomically
from data_pipeline.config import BadInput, Config, Corrupt
from data_pipeline.manifest import FORMAT_VERSION, ShardRecord
from data_pipeline.mixing import fraction_of
from data_pipeline.prepare.shard_writer import ShardWriter
from data_pipeline.sources import Corpus
from data_pipeline.sources.document import Document, Piece, Report, Split
from data_pipeline.steps.cleaned_corpus import CleanedCorpus
from data_pipeline.tokenizers.stored import load_tokenizer
from data_pipeline.tokenizers.tokenizer import Tokenizer

WORK_FOLDER = "work"
"""In the directory of the shards: what a later run needs to go on."""

CALL_BYTES = 1 << 20
"""Text handed to the tokenizer at a time."""


@dataclass(frozen=True, slots=True)
class ScanTask:
    """What of a piece is wanted."""

    corpus: Corpus | CleanedCorpus
    piece: Piece
    sample_bytes: int
    count_words: bool


@dataclass(slots=True)
class Scan:
    """What is in a piece."""

    content: str = ""
    """SHA-256 over the ids, splits and texts of its documents."""
    num_documents: Counter[Split] = field(default_factory=Counter)
    num_bytes: int = 0
    report: Report = field(default_factory=Report)
    sample: list[tuple[float, int]] = field(default_factory=list)
    """(priority, bytes) of the train documents that may be in the sample, the first ones first."""
    words: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class SampleTask:
    """Which documents to sample: those whose priority is at most `highest`."""

    corpus: Corpus | CleanedCorpus
    piece: Piece
    highest: float


@dataclass(frozen=True, slots=True)
class EncodeTask:
    """What to encode, and where to."""

    corpus: Corpus | CleanedCorpus
    piece: Piece
    number: int
    content: str
    """As scanned."""
    directory: Path
    tokenizer_hash: str
    shard_bytes: int

    @property
    def key(self) -> str:
        """Of everything that decides the shards."""
        parts = (self.content, self.tokenizer_hash, self.shard_bytes, FORMAT_VERSION)
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    @property
    def record_path(self) -> Path:
        return self.directory / WORK_FOLDER / f"piece-{self.number:05d}.json"


class Encoded(Config):
    """The shards of a piece, and what they were made of."""

    key: str
    num_documents: int
    num_bytes: int
    shards: dict[Split, tuple[ShardRecord, ...]]


def scan(task: ScanTask) -> Scan:
    """Reads a piece once."""
    result, digest = Scan(), hashlib.sha256()
    for split, document in task.corpus.read(task.piece, result.report):
        _digest(digest, split, document)
        result.num_documents[split] += 1
        result.num_bytes += document.num_bytes
        if split == "train" and task.sample_bytes:
            result.sample.append((priority(document.id), document.num_bytes))
        if split == "train" and task.count_words:
            result.words.update(document.text.split())
    result.content = digest.hexdigest()
    result.sample = first_of(result.sample, task.sample_bytes)
    return result


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


def sample(task: SampleTask) -> list[str]:
    """The texts of the piece's documents in the sample, in the corpus's order."""
    documents = (document for split, document in task.corpus.read(task.piece, Report()) if split == "train")
    return [document.text for document in documents if priority(document.id) <= task.highest]


def encode(task: EncodeTask) -> Encoded:
    """Writes the piece's shards, and last the record of them; what an earlier run finished is kept.

    BadInput if the corpus is no longer what was scanned, or the directory cannot be written.
    """
    kept = _finished(task)
    if kept is not None:
        return kept
    tokenizer = _tokenizer(task.directory, task.tokenizer_hash)
    writers: dict[Split, ShardWriter] = {}
    digest, count, num_bytes = hashlib.sha256(), 0, 0
    for batch in _batches(task.corpus.read(task.piece, Report())):
        tokens = tokenizer.encode_documents([document.text for _, document in batch])
        for (split, document), ids in zip(batch, tokens, strict=True):
            _digest(digest, split, document)
            writer = writers.get(split) or ShardWriter(task.directory, f"{split}-{task.number:05d}", task.shard_bytes)
            writers[split] = writer
            writer.add(ids, document.num_bytes)
            count, num_bytes = count + 1, num_bytes + document.num_bytes
    if digest.hexdigest() != task.content:
        raise BadInput(
            f"corpus: {task.piece.spans[0].name} (or a file after it) changed while it was prepared; run "
            "`launch.py prepare` again"
        )
    shards = {split: tuple(writer.finish()) for split, writer in writers.items()}
    encoded = Encoded(key=task.key, num_documents=count, num_bytes=num_bytes, shards=shards)
    write_atomically(task.record_path, encoded.model_dump_json(indent=1).encode())
    return encoded


def _finished(task: EncodeTask) -> Encoded | None:
    """What an earlier run wrote of the same piece, if every byte of it still is as written."""
    try:
        encoded = Encoded.model_validate_json(task.record_path.read_bytes())
        records = [record for shards in encoded.shards.values() for record in shards]
        for record in records:
            record.check_sizes(task.directory)
    except (OSError, ValidationError, Corrupt):
        return None
    whole = all(
        sha256_of(record.path(task.directory, kind)) == file.sha256
        for record in records
        for kind, file in record.files.items()
    )
    return encoded if whole and encoded.key == task.key else None


def _batches(documents: Iterator[tuple[Split, Document]]) -> Iterator[list[tuple[Split, Document]]]:
    batch: list[tuple[Split, Document]] = []
    size = 0
    for split, document in documents:
        batch.append((split, document))
        size += document.num_bytes
        if size >= CALL_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _digest(digest: "hashlib._Hash", split: Split, document: Document) -> None:
    digest.update(f"{split}\0{document.id}\0{document.num_bytes}\0".encode())
    digest.update(document.text.encode())


@lru_cache(maxsize=1)
def _tokenizer(directory: Path, tokenizer_hash: str) -> Tokenizer:
    return load_tokenizer(directory, tokenizer_hash)
