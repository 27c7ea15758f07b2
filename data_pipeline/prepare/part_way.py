"""Going on within a piece: a compressed file, which cannot be cut, may hold many shards.

After each batch that has finished shards, they are recorded with how many documents were read and the hash of those. A
later run reads the same documents again, encodes only those of shards that are not there, and compares the hash.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from pydantic import Field, ValidationError

from data_pipeline.atomic import write_atomically
from data_pipeline.config import Config, Corrupt
from data_pipeline.manifest import FORMAT_VERSION, ShardRecord
from data_pipeline.prepare.directory import WORK_FOLDER
from data_pipeline.prepare.scanning import Scanner, ScanTask
from data_pipeline.sources.document import Split
from data_pipeline.sources.whole_documents import SplitDocument


class Changed(Exception):
    """The documents are not those that the shards were made of."""


class PartWay(Config):
    """How far a piece was."""

    key: str = ""
    num_documents: int = 0
    """That were read."""
    content: str = ""
    """SHA-256 over them."""
    shards: dict[Split, tuple[ShardRecord, ...]] = Field(default={})
    """Those that are finished."""

    @classmethod
    def read(cls, task: ScanTask, key: str) -> "PartWay":
        """What an earlier run wrote with the same key; the beginning, if there is none or a shard is not whole."""
        try:
            found = cls.model_validate_json(_path(task).read_bytes())
            for record in found.records():
                record.check_content(task.directory)
        except (OSError, ValidationError, Corrupt):
            return cls(key=key)
        return found if found.key == key else cls(key=key)

    def records(self) -> Iterator[ShardRecord]:
        """All of them."""
        return (record for records in self.shards.values() for record in records)

    def write(self, task: ScanTask) -> None:
        """In place of the one before."""
        write_atomically(_path(task), self.model_dump_json().encode())

    def checked(self, documents: Iterator[SplitDocument], scanner: Scanner) -> Iterator[tuple[bool, SplitDocument]]:
        """Each document, taken in by the scanner, and whether its shard is finished; Changed once that shows."""
        left = Counter({split: sum(one.num_documents for one in records) for split, records in self.shards.items()})
        for split, document in documents:
            scanner.add(split, document)
            if scanner.num_documents == self.num_documents and scanner.content != self.content:
                raise Changed
            left[split] -= 1
            yield left[split] >= 0, (split, document)
        if scanner.num_documents < self.num_documents:
            raise Changed


def key_of(task: ScanTask, tokenizer_hash: str, shard_bytes: int) -> str:
    """Of all that decides a piece's shards but for the documents."""
    parts = (FORMAT_VERSION, asdict(task.piece), tokenizer_hash, shard_bytes)
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def forget(task: ScanTask) -> None:
    """Once the piece is finished, or was found changed."""
    _path(task).unlink(missing_ok=True)


def _path(task: ScanTask) -> Path:
    return task.directory / WORK_FOLDER / f"part-{task.number:05d}.json"
