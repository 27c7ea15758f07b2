"""Writing token shards of a bounded size."""

import io
from array import array
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from data_pipeline.atomic import write_atomically
from data_pipeline.config import BadInput
from data_pipeline.manifest import FileKind, ShardRecord
from data_pipeline.stored_files import FileRecord

MOST_ARRAYS = 1 << 12
"""Of tokens that are held one by one."""


class ShardWriter:
    """Collects documents and writes a shard whenever the next one would make it too large."""

    def __init__(self, directory: Path, name: str, shard_bytes: int, written: Iterable[ShardRecord] = ()) -> None:
        """Shards are called `name`-000 and so on, after those that are `written`; each has at most `shard_bytes` of
        text, or one document."""
        self._directory, self._name, self._shard_bytes = directory, name, shard_bytes
        self.records: list[ShardRecord] = [*written]
        """Of the shards that are there."""
        self._continues = False
        self._held_bytes, self._held_begin = 0, False
        self._clear()

    def add(self, tokens: np.ndarray, num_bytes: int, *, continues: bool = False) -> None:
        """One document: its tokens with the end, and the bytes of its text; or a part that continues the one before."""
        if not len(tokens):
            self._hold(num_bytes, continues)
            return
        num_bytes, continues = num_bytes + self._held_bytes, continues and not self._held_begin
        self._held_bytes, self._held_begin = 0, False
        if self._sizes and self._num_bytes + num_bytes > self._shard_bytes:
            self._write()
        self._num_bytes += num_bytes
        self._append(tokens)
        if continues and self._sizes:
            self._sizes[-1] += num_bytes
            self._lengths[-1] += len(tokens)
            return
        self._continues = self._continues or continues
        self._sizes.append(num_bytes)
        self._lengths.append(len(tokens))

    def finish(self) -> list[ShardRecord]:
        """All shards written, in order; BadInput if they end in parts without tokens."""
        if self._held_bytes or self._held_begin:
            raise BadInput(
                f"corpus: a document of shard {self._name} has {self._held_bytes} bytes in a row without a token "
                "(white space or NUL?); take such stretches out of it, or set data.shard_bytes higher"
            )
        if self._sizes:
            self._write()
        return self.records

    def _hold(self, num_bytes: int, continues: bool) -> None:
        """A part without tokens (of white space, to some tokenizers) cannot begin a shard: it goes with the next."""
        self._held_bytes += num_bytes
        self._held_begin = self._held_begin or not continues

    def _append(self, tokens: np.ndarray) -> None:
        self._short.append(tokens)
        if len(self._short) == MOST_ARRAYS:  # of many short documents the arrays would be larger than what they hold
            self._tokens.append(np.concatenate(self._short))
            self._short.clear()

    def _clear(self) -> None:
        self._tokens: list[np.ndarray] = []
        self._short: list[np.ndarray] = []
        self._lengths, self._sizes = array("q"), array("q")
        self._num_bytes, self._continues = 0, False

    def _write(self) -> None:
        contents: dict[FileKind, bytes] = {
            "tokens": _npy([*self._tokens, *self._short]),
            "offsets": _npy([np.cumsum(np.concatenate([[0], self._lengths])).astype("<i8")]),
            "bytes": _npy([np.array(self._sizes, dtype="<i8")]),
        }
        record = ShardRecord(
            name=f"{self._name}-{len(self.records):03d}",
            num_tokens=sum(self._lengths),
            num_documents=len(self._sizes),
            num_bytes=self._num_bytes,
            files={kind: FileRecord.of(data) for kind, data in contents.items()},
            continues=self._continues,
        )
        for kind, data in contents.items():
            write_atomically(record.path(self._directory, kind), data)
        self.records.append(record)
        self._clear()


def _npy(parts: list[np.ndarray]) -> bytes:
    """A file of the parts end to end, as `np.save` writes it, with one copy of them in memory."""
    header = io.BytesIO()
    length = sum(map(len, parts))
    np.lib.format.write_array_header_1_0(
        header, {"descr": np.lib.format.dtype_to_descr(parts[0].dtype), "fortran_order": False, "shape": (length,)}
    )
    return b"".join([header.getvalue(), *(np.ascontiguousarray(part).data for part in parts)])
