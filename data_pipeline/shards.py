"""Tokenized documents on disk, read by memory map.

Legend: D documents of the split, S shards.
"""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np

from data_pipeline.atomic import sha256_of
from data_pipeline.config import BadInput, Corrupt
from data_pipeline.manifest import FileKind, Manifest, ShardRecord, read_manifest

MOST_MAPS = 1024
"""Shards mapped at a time: the operating system allows a process some 65,000."""


class TokenShards:
    """One split of a prepared directory. It keeps three int64 per document in memory, and no tokens."""

    def __init__(self, directory: Path, split: str, manifest: Manifest) -> None:
        """Corrupt, naming the file, if a file is missing or is not what was written (by size and shape)."""
        self._directory, self._shards = directory, manifest.splits[split].shards
        for shard in self._shards:
            shard.check_sizes(directory)
        self.fingerprint = manifest.fingerprint(split)
        offsets = [self._load(shard, "offsets") for shard in self._shards]
        self.lengths: np.ndarray = np.concatenate([np.diff(one) for one in offsets])
        """[D] int64: tokens of each document, its end included."""
        self._bytes_D = np.concatenate([self._load(shard, "bytes") for shard in self._shards])
        self._starts_D = np.cumsum(self.lengths) - self.lengths
        self._ends_S = np.cumsum([shard.num_tokens for shard in self._shards])
        self._firsts_S = self._ends_S - [shard.num_tokens for shard in self._shards]
        self._tokens = lru_cache(maxsize=MOST_MAPS)(self._map)

    @classmethod
    def open(cls, directory: Path, split: str) -> "TokenShards":
        """BadInput if the directory is not prepared or has no such split; Corrupt as above."""
        manifest = read_manifest(directory)
        if split not in manifest.splits:
            raise BadInput(f"split {split!r}: {directory} has the splits {', '.join(manifest.splits)}")
        return cls(directory, split, manifest)

    @property
    def num_tokens(self) -> int:
        return int(self._ends_S[-1])

    @property
    def num_documents(self) -> int:
        return len(self.lengths)

    @property
    def num_bytes(self) -> int:
        """Of the documents' text, in UTF-8."""
        return int(self._bytes_D.sum())

    def document(self, index: int) -> np.ndarray:
        """[length] int64: the tokens of a document, its end included; IndexError unless 0 <= index < num_documents."""
        if not 0 <= index < self.num_documents:
            raise IndexError(f"document {index}: there are {self.num_documents}")
        offset = np.arange(self.lengths[index])
        return self.tokens_at(np.full_like(offset, index), offset)

    def document_bytes(self, index: int) -> int:
        """UTF-8 bytes of the document's text."""
        return int(self._bytes_D[index])

    def documents(self) -> Iterator[tuple[np.ndarray, int]]:
        """Every document's tokens and bytes, in order."""
        return ((self.document(index), self.document_bytes(index)) for index in range(self.num_documents))

    def read(self, documents_K: np.ndarray, offsets_K: np.ndarray, lengths_K: np.ndarray) -> np.ndarray:
        """[sum of lengths] int64: stretch after stretch, tokens offset .. offset + length of its document."""
        starts_K = self._starts_D[documents_K] + offsets_K
        shard_K = np.searchsorted(self._ends_S, starts_K, side="right")
        goes_on = (starts_K[1:] == starts_K[:-1] + lengths_K[:-1]) & (shard_K[1:] == shard_K[:-1])
        heads = np.flatnonzero(np.concatenate([[True], ~goes_on]))  # documents that lie side by side are one stretch
        begins, numbers = (starts_K - self._firsts_S[shard_K])[heads].tolist(), shard_K[heads].tolist()
        lengths = np.add.reduceat(lengths_K, heads).tolist()
        tokens, filled = np.empty(int(lengths_K.sum()), dtype=np.int64), 0
        for number, begin, length in zip(numbers, begins, lengths, strict=True):
            tokens[filled : filled + length] = self._tokens(number)[begin : begin + length]
            filled += length
        return tokens

    def tokens_at(self, documents: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """int64 of the arguments' common shape: token `offsets[i]` of document `documents[i]`."""
        position = self._starts_D[documents] + offsets
        shard = np.searchsorted(self._ends_S, position, side="right")
        tokens = np.empty(position.shape, dtype=np.int64)
        for number in np.unique(shard):
            here = shard == number
            tokens[here] = self._tokens(int(number))[position[here] - self._firsts_S[number]]
        return tokens

    def verify(self) -> None:
        """Reads every file and compares its hash; Corrupt naming the first that is not what was written."""
        for shard in self._shards:
            for kind, record in shard.files.items():
                path = shard.path(self._directory, kind)
                if sha256_of(path) != record.sha256:
                    raise Corrupt(f"{path}: its content is not what was written; run `launch.py prepare` again")

    def _map(self, number: int) -> np.ndarray:
        return np.asarray(self._load(self._shards[number], "tokens", mapped=True))  # a memmap's slices are slow to make

    def _load(self, shard: ShardRecord, kind: FileKind, *, mapped: bool = False) -> np.ndarray:
        path = shard.path(self._directory, kind)
        expected = {"tokens": shard.num_tokens, "offsets": shard.num_documents + 1, "bytes": shard.num_documents}
        try:
            array: np.ndarray = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise Corrupt(f"{path}: cannot be read ({error}); run `launch.py prepare` again") from error
        if array.shape != (expected[kind],):
            raise Corrupt(f"{path}: shape {array.shape} instead of ({expected[kind]},); run `launch.py prepare` again")
        return array
