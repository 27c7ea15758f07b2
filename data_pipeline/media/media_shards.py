"""Prepared media on disk: any item by its number, without reading what is before it.

Legend: N items of the split, S shards.
"""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.arrays import npy_array
from data_pipeline.config import BadInput, Corrupt
from data_pipeline.media.item import told
from data_pipeline.media.media_manifest import MediaManifest, MediaShardRecord, read_media_manifest
from data_pipeline.media.tar_writer import COLUMNS
from data_pipeline.stored_files import other_content, out_of_reach

MOST_MAPS = 1024
"""Tars mapped at a time: the operating system allows a process some 65,000."""


class MediaShards:
    """One split of a prepared directory. It keeps seven int64 per item in memory, and no payload."""

    def __init__(self, directory: Path, split: str, manifest: MediaManifest) -> None:
        """Corrupt, naming the file, if a file is missing or is not what was written (by size and shape)."""
        self._directory, self._shards = directory, manifest.splits[split].shards
        for shard in self._shards:
            shard.check_sizes(directory)
        self.fingerprint = manifest.fingerprint(split)
        index_NC = np.concatenate([self._index(shard) for shard in self._shards])
        self._columns = {name: np.ascontiguousarray(index_NC[:, place]) for place, name in enumerate(COLUMNS)}
        self._shard_N = np.repeat(np.arange(len(self._shards)), [shard.num_items for shard in self._shards])
        self._map = lru_cache(maxsize=MOST_MAPS)(self._mapped)

    @classmethod
    def open(cls, directory: Path, split: str) -> "MediaShards":
        """BadInput if the directory is not prepared or has no such split; Corrupt as above."""
        manifest = read_media_manifest(directory)
        if split not in manifest.splits:
            raise BadInput(f"split {split!r}: {directory} has the splits {', '.join(manifest.splits)}")
        return cls(directory, split, manifest)

    @property
    def num_items(self) -> int:
        return len(self._shard_N)

    @property
    def labels(self) -> np.ndarray:
        """[N] int64: the class, or -1."""
        return self._columns["label"]

    @property
    def lengths(self) -> np.ndarray:
        """[N] int64: samples or steps; ones of images."""
        return self._columns["length"]

    @property
    def sizes(self) -> np.ndarray:
        """[N] int64: bytes of the payloads."""
        return self._columns["num_bytes"]

    def num_bytes(self, item: int) -> int:
        """Of its payload."""
        return int(self._columns["num_bytes"][item])

    def payload(self, item: int, start: int = 0, stop: int | None = None) -> bytes:
        """The bytes [start, stop) of an item's payload, of all of it if not given; negative ones from its end on."""
        size = self.num_bytes(item)
        begin, end, _ = slice(start, stop).indices(size)
        return self._read(item, "offset", begin, end)

    def about(self, item: int) -> bytes:
        """The JSON beside it: where it is from, and what is told of it."""
        return self._read(item, "json_offset", 0, int(self._columns["json_bytes"][item]))

    def damaged(self, item: int, error: Exception) -> Corrupt:
        """What to raise for an item that cannot be decoded."""
        path = self._shards[self._shard_N[item]].path(self._directory, "tar")
        number = int(item - np.searchsorted(self._shard_N, self._shard_N[item]))
        return Corrupt(other_content(path, f"item {number}{self._origin(item)} cannot be decoded ({told(error)})"))

    def _origin(self, item: int) -> str:
        """Its name in the corpus, if that can be read."""
        try:
            return f", of {json.loads(self.about(item))['source']},"
        except (ValueError, KeyError, TypeError):
            return ""

    def _read(self, item: int, column: str, begin: int, end: int) -> bytes:
        offset = int(self._columns[column][item])
        return self._map(int(self._shard_N[item]))[offset + begin : offset + end].tobytes()

    def _mapped(self, number: int) -> np.ndarray:
        path = self._shards[number].path(self._directory, "tar")
        try:
            mapped: np.ndarray[Any, np.dtype[np.uint8]] = np.memmap(path, dtype=np.uint8, mode="r")
        except OSError as error:
            raise Corrupt(out_of_reach(path, error)) from error
        except ValueError as error:
            raise Corrupt(other_content(path, f"cannot be read ({error})")) from error
        return mapped

    def _index(self, shard: MediaShardRecord) -> np.ndarray:
        path = shard.path(self._directory, "index")
        try:
            index = npy_array(path.read_bytes())
        except OSError as error:
            raise Corrupt(out_of_reach(path, error)) from error
        except (ValueError, EOFError) as error:
            raise Corrupt(other_content(path, f"cannot be read ({error})")) from error
        if index.shape != (shard.num_items, len(COLUMNS)) or index.dtype != np.int64:
            raise Corrupt(other_content(path, f"{index.dtype} {list(index.shape)} instead of int64"))
        return index
