"""What a worker does with one piece of the corpus, once it was scanned: give its share of the sample, encode it.

Each is a function of its argument and of files, so that any worker can do it, and do it again.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from pydantic import ValidationError

from data_pipeline.atomic import write_atomically
from data_pipeline.config import BadInput, Config, Corrupt
from data_pipeline.manifest import FORMAT_VERSION, ShardRecord
from data_pipeline.prepare.directory import WORK_FOLDER
from data_pipeline.prepare.document_parts import batches, documents_of
from data_pipeline.prepare.part_way import Changed, PartWay, forget, key_of
from data_pipeline.prepare.scanning import Scan, Scanner, ScanTask, keep, kept_scan, priority, scan
from data_pipeline.prepare.shard_writer import ShardWriter
from data_pipeline.sources import Corpus
from data_pipeline.sources.document import Piece, Report, Split
from data_pipeline.sources.whole_documents import SplitDocument, whole_documents
from data_pipeline.steps.cleaned_corpus import CleanedCorpus
from data_pipeline.tokenizers.stored import load_tokenizer
from data_pipeline.tokenizers.tokenizer import Tokenizer, Tokens

CALL_BYTES = 1 << 20
"""Text handed to the tokenizer at a time."""

Writers = dict[Split, ShardWriter]


@dataclass(frozen=True, slots=True)
class SampleTask:
    """Which documents to sample: those whose priority is at most `highest`."""

    corpus: Corpus | CleanedCorpus
    piece: Piece
    highest: float
    most_characters: int | None = None
    """Of one of them: a document far longer than the whole sample was to be is not needed."""


@dataclass(frozen=True, slots=True)
class EncodeTask:
    """What to encode, and where to."""

    scan: ScanTask
    content: str | None
    """As scanned; None if it was not yet, and is to be in the same pass."""
    tokenizer_hash: str
    shard_bytes: int

    def key(self, content: str) -> str:
        """Of everything that decides the shards."""
        parts = (content, self.tokenizer_hash, self.shard_bytes, FORMAT_VERSION)
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    @property
    def record_path(self) -> Path:
        return self.scan.directory / WORK_FOLDER / f"piece-{self.scan.number:05d}.json"


class Encoded(Config):
    """The shards of a piece, and what they were made of."""

    key: str
    num_documents: int
    num_bytes: int
    shards: dict[Split, tuple[ShardRecord, ...]]


def sample(task: SampleTask) -> list[str]:
    """The texts of the piece's documents in the sample, in the corpus's order."""
    documents = documents_of(task.corpus, task.piece, Report())
    most = task.most_characters
    return [one.text[:most] for split, one in documents if split == "train" and priority(one.id) <= task.highest]


def encode(task: EncodeTask) -> Encoded:
    """Writes the piece's shards, and last the record of them; what an earlier run finished is kept.

    BadInput if the corpus is no longer what was scanned, or the directory cannot be written.
    """
    kept = _finished(task)
    return kept if kept is not None and kept.key == task.key(task.content or "") else _encode(task)[1]


def scan_and_encode(task: EncodeTask) -> tuple[Scan, Encoded]:
    """The same of a piece that was not scanned yet, in one pass, unless an earlier run has encoded it."""
    stamp = task.scan.corpus.stamp(task.scan.piece)
    known = kept_scan(task.scan, stamp)
    kept = _finished(task)
    if kept is not None:
        known = known or scan(task.scan)
        if kept.key == task.key(known.content):
            return known, kept
    found, encoded = _encode(task)
    keep(task.scan, found, stamp)
    return found, encoded


def _encode(task: EncodeTask) -> tuple[Scan, Encoded]:
    key = key_of(task.scan, task.tokenizer_hash, task.shard_bytes)
    try:
        scanner, writers = _written(task, PartWay.read(task.scan, key))
    except Changed:
        scanner, writers = _written(task, PartWay(key=key))
    found = scanner.finish()
    if task.content not in (None, found.content):
        raise BadInput(
            f"corpus: {task.scan.piece.spans[0].name} (or a file after it) changed while it was prepared; run "
            "`launch.py prepare` again"
        )
    encoded = Encoded(
        key=task.key(found.content),
        num_documents=found.num_documents,
        num_bytes=found.num_bytes,
        shards={split: tuple(writer.finish()) for split, writer in writers.items()},
    )
    write_atomically(task.record_path, encoded.model_dump_json(indent=1).encode())
    forget(task.scan)
    return found, encoded


def _written(task: EncodeTask, begun: PartWay) -> tuple[Scanner, Writers]:
    """One pass over the piece, from where it was."""
    where, tokenizer = task.scan, _tokenizer(task.scan.directory, task.tokenizer_hash)
    scanner = Scanner(where)
    writers: Writers = {}
    for split, records in begun.shards.items():
        writers[split] = _writer(task, split, records)
    read = documents_of(where.corpus, where.piece, scanner.report)
    wanted = (one for is_there, one in begun.checked(read, scanner) if not is_there)
    num_shards = 0
    for batch in batches(wanted if tokenizer.divisible else whole_documents(wanted), CALL_BYTES):
        for (split, document), tokens in zip(batch, _tokens(tokenizer, batch), strict=True):
            if split not in writers:
                writers[split] = _writer(task, split)
            writers[split].add(tokens, document.num_bytes, continues=document.continues)
        shards = {split: tuple(writer.records) for split, writer in writers.items()}
        if sum(map(len, shards.values())) > num_shards and not any(span.document for span in where.piece.spans):
            num_shards = sum(map(len, shards.values()))
            progress = {"num_documents": scanner.num_documents, "content": scanner.content, "shards": shards}
            begun.model_copy(update=progress).write(where)
    return scanner, writers


def _writer(task: EncodeTask, split: Split, written: Iterable[ShardRecord] = ()) -> ShardWriter:
    return ShardWriter(task.scan.directory, f"{split}-{task.scan.number:05d}", task.shard_bytes, written)


def _tokens(tokenizer: Tokenizer, batch: list[SplitDocument]) -> Iterator[Tokens]:
    """Of each document or part of one; a part that is not the last has no end."""
    ended = iter(tokenizer.encode_documents([document.text for _, document in batch if not document.more]))
    for _, document in batch:
        yield tokenizer.encode_batch([document.text])[0] if document.more else next(ended)


def _finished(task: EncodeTask) -> Encoded | None:
    """What an earlier run wrote of the same piece, if every byte of it still is as written."""
    try:
        encoded = Encoded.model_validate_json(task.record_path.read_bytes())
        for record in (record for shards in encoded.shards.values() for record in shards):
            record.check_content(task.scan.directory)
    except (OSError, ValidationError, Corrupt):
        return None
    return encoded


@lru_cache(maxsize=1)
def _tokenizer(directory: Path, tokenizer_hash: str) -> Tokenizer:
    return load_tokenizer(directory, tokenizer_hash)
