"""Writing token shards of a bounded size."""

import hashlib
import io
from pathlib import Path

import numpy as np

from data_pipeline.atomic import write_atomically
from data_pipeline.manifest import FileKind, FileRecord, ShardRecord


class ShardWriter:
    """Collects documents and writes a shard whenever the next one would make it too large."""

    def __init__(self, directory: Path, name: str, shard_bytes: int) -> None:
        """Shards are called `name`-000 and so on; each has at most `shard_bytes` of text, or one document."""
        self._directory, self._name, self._shard_bytes = directory, name, shard_bytes
        self._tokens: list[np.ndarray] = []
        self._sizes: list[int] = []
        self._records: list[ShardRecord] = []

    def add(self, tokens: np.ndarray, num_bytes: int) -> None:
        """One document: its tokens with the end, and the bytes of its text."""
        if self._sizes and sum(self._sizes) + num_bytes > self._shard_bytes:
            self._write()
        self._tokens.append(tokens)
        self._sizes.append(num_bytes)

    def finish(self) -> list[ShardRecord]:
        """All shards written, in order."""
        if self._sizes:
            self._write()
        return self._records

    def _write(self) -> None:
        offsets = np.cumsum([0, *(len(tokens) for tokens in self._tokens)]).astype("<i8")
        arrays: dict[FileKind, np.ndarray] = {
            "tokens": np.concatenate(self._tokens),
            "offsets": offsets,
            "bytes": np.array(self._sizes, dtype="<i8"),
        }
        contents = {kind: _npy(array) for kind, array in arrays.items()}
        record = ShardRecord(
            name=f"{self._name}-{len(self._records):03d}",
            num_tokens=int(offsets[-1]),
            num_documents=len(self._sizes),
            num_bytes=sum(self._sizes),
            files={
                kind: FileRecord(num_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
                for kind, data in contents.items()
            },
        )
        for kind, data in contents.items():
            write_atomically(record.path(self._directory, kind), data)
        self._records.append(record)
        self._tokens, self._sizes = [], []


def _npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()
