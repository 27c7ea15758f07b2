"""WebDataset tars of a bounded size, equal for equal items, each with an index of where its items lie.

An item has two members, KEY.SUFFIX and KEY.json. The index is [items, 6] int64; its columns are `COLUMNS`.
"""

import json
import tarfile
from pathlib import Path
from typing import Final

import numpy as np

from data_pipeline.arrays import npy_bytes
from data_pipeline.atomic import write_atomically
from data_pipeline.media.item import Stored
from data_pipeline.media.media_manifest import MediaFileKind, MediaShardRecord
from data_pipeline.stored_files import FileRecord

COLUMNS: Final = ("offset", "num_bytes", "json_offset", "json_bytes", "label", "length")
"""Where the payload begins in the tar, and its bytes; the same of the JSON; the class, or -1; samples or steps."""
NO_LABEL = -1
BLOCK = tarfile.BLOCKSIZE
END = bytes(2 * BLOCK)


class TarWriter:
    """Collects items and writes a tar whenever the next one would make it too large."""

    def __init__(self, directory: Path, name: str, shard_bytes: int, *, first: int = 0) -> None:
        """Tars are called `name`-000 and so on, from the number `first` on; each has at most `shard_bytes`, or one
        item."""
        self._directory, self._name, self._shard_bytes = directory, name, shard_bytes
        self._number, self._parts, self._size = first, list[bytes](), 0
        self._rows: list[tuple[int, ...]] = []

    def add(self, stored: Stored, suffix: str, label: int, facts: dict[str, object]) -> MediaShardRecord | None:
        """The record of the tar that had to be written before this item, if one had to be."""
        about = json.dumps(facts, ensure_ascii=False, sort_keys=True).encode()
        size = 2 * BLOCK + _padded(len(stored.payload)) + _padded(len(about))
        full = self._rows and self._size + size + len(END) > self._shard_bytes
        written = self.write() if full else None
        key = f"{self._name}-{self._number:03d}-{len(self._rows):06d}"
        offset = self._member(f"{key}.{suffix}", stored.payload)
        json_offset = self._member(f"{key}.json", about)
        self._rows.append((offset, len(stored.payload), json_offset, len(about), label, stored.length))
        return written

    def write(self) -> MediaShardRecord | None:
        """What has been collected, if there is anything."""
        if not self._rows:
            return None
        index = np.array(self._rows, dtype="<i8")
        contents: dict[MediaFileKind, bytes] = {"tar": b"".join((*self._parts, END)), "index": npy_bytes(index)}
        record = MediaShardRecord(
            name=f"{self._name}-{self._number:03d}",
            num_items=len(self._rows),
            length=int(index[:, COLUMNS.index("length")].sum()),
            num_bytes=int(index[:, COLUMNS.index("num_bytes")].sum()),
            files={kind: FileRecord.of(data) for kind, data in contents.items()},
        )
        for kind, data in contents.items():
            write_atomically(record.path(self._directory, kind), data)
        self._number, self._parts, self._size, self._rows = self._number + 1, [], 0, []
        return record

    def _member(self, name: str, content: bytes) -> int:
        """Where its content begins. All that is not name, size and content is the same in every member."""
        header = tarfile.TarInfo(name)
        header.size, header.mtime, header.mode = len(content), 0, 0o644
        self._parts += [header.tobuf(tarfile.USTAR_FORMAT), content, bytes(_padded(len(content)) - len(content))]
        begin = self._size + BLOCK
        self._size = begin + _padded(len(content))
        return begin


def _padded(size: int) -> int:
    """Of whole blocks."""
    return -(-size // BLOCK) * BLOCK
