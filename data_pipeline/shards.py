"""Tokenized documents on disk, read by memory map.

Legend: D documents of the split, S shards.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

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
        starts = _starts(self._shards)
        self.lengths: np.ndarray = np.add.reduceat(self._of_all("offsets"), starts)
        """[D] int64: tokens of each document, its end included."""
        self._bytes_D = np.add.reduceat(self._of_all("bytes"), starts)
        self._starts_D = np.cumsum(self.lengths) - self.lengths
        self._ends_S = np.cumsum([shard.num_tokens for shard in self._shards])
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

    def tokens_at(self, documents: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """int64 of the arguments' common shape: token `offsets[i]` of document `documents[i]`."""
        position = self._starts_D[documents] + offsets
        shard = np.searchsorted(self._ends_S, position, side="right")
        tokens = np.empty(position.shape, dtype=np.int64)
        for number in np.unique(shard):
            here = shard == number
            first = self._ends_S[number] - self._shards[number].num_tokens
            tokens[here] = self._tokens(int(number))[position[here] - first]
        return tokens

    def verify(self) -> None:
        """Reads every file and compares its hash; Corrupt naming the first that is not what was written."""
        for shard in self._shards:
            shard.check_content(self._directory)

    def _of_all(self, kind: FileKind) -> np.ndarray:
        """Tokens ("offsets") or bytes of the documents, and parts of documents, of all shards."""
        found = [self._load(shard, kind) for shard in self._shards]
        return np.concatenate([np.diff(one) for one in found] if kind == "offsets" else found)

    def _map(self, number: int) -> np.ndarray:
        return self._load(self._shards[number], "tokens", mapped=True)

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


def _starts(shards: Sequence[ShardRecord]) -> np.ndarray:
    """[D] which of all shards' documents are the first parts of documents."""
    begins = np.ones(sum(shard.num_documents for shard in shards), dtype=bool)
    firsts = np.cumsum([0, *(shard.num_documents for shard in shards)])[:-1]
    begins[firsts[[shard.continues for shard in shards]]] = False
    return np.flatnonzero(begins)
