"""Tokenized documents on disk, read by memory map.

Legend: D documents of the split, S shards.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np

from data_pipeline.config import BadInput, Corrupt
from data_pipeline.manifest import FileKind, Manifest, ShardRecord, read_manifest
from data_pipeline.stored_files import other_content, out_of_reach

MOST_MAPS = 1024
"""Shards mapped at a time: the operating system allows a process some 65,000."""


class TokenShards:
    """One split of a prepared directory. It keeps three int64 per document in memory, and no tokens."""

    def __init__(
        self, directory: Path, split: str, manifest: Manifest, *, damaged: Literal["stop", "skip"] = "stop"
    ) -> None:
        """Corrupt, naming the file, if a file is missing or is not what was written (by size and form); with
        `damaged` skip such shards are left out, and it is Corrupt if no other is there. Shards that share a document
        are left out together."""
        self._directory, self._split = directory, split
        self.left_out: dict[str, str] = {}
        """Shards that are damaged, or share a document with one that is, and why."""
        self._left_out_shards: list[ShardRecord] = []
        found = self._open_all(manifest.splits[split].shards, damaged == "skip")
        if not found:
            first = next(iter(self.left_out.values()))
            raise Corrupt(f"{directory}: every shard of the split {split!r} is damaged, such as {first}")
        self._shards = [shard for shard, _, _ in found]
        self.fingerprint = manifest.fingerprint_without([*self.left_out], split)
        starts = _starts(self._shards)
        self.lengths: np.ndarray = np.add.reduceat(np.concatenate([np.diff(one) for _, one, _ in found]), starts)
        """[D] int64: tokens of each document, its end included."""
        self._bytes_D = np.add.reduceat(np.concatenate([sizes for _, _, sizes in found]), starts)
        self._starts_D = np.cumsum(self.lengths) - self.lengths
        self._ends_S = np.cumsum([shard.num_tokens for shard in self._shards])
        self._firsts_S = self._ends_S - [shard.num_tokens for shard in self._shards]
        self._tokens = lru_cache(maxsize=MOST_MAPS)(self._map)

    @classmethod
    def open(cls, directory: Path, split: str, *, damaged: Literal["stop", "skip"] = "stop") -> "TokenShards":
        """BadInput if the directory is not prepared or has no such split; Corrupt as above."""
        manifest = read_manifest(directory)
        if split not in manifest.splits:
            raise BadInput(f"split {split!r}: {directory} has the splits {', '.join(manifest.splits)}")
        return cls(directory, split, manifest, damaged=damaged)

    def left_out_lines(self) -> list[str]:
        """A line for each shard that is left out, then one that counts them."""
        if not self.left_out:
            return []
        documents = sum(shard.num_documents - shard.continues for shard in self._left_out_shards)
        tokens = sum(shard.num_tokens for shard in self._left_out_shards)
        shares = f"{documents:,} of {documents + self.num_documents:,} documents, {tokens:,} tokens"
        count = f"{self._directory}: {len(self.left_out)} damaged shards of the split {self._split!r} are left out"
        return [*dict.fromkeys(self.left_out.values()), f"{count} ({shares})"]

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
        return self.read(np.array([index]), np.zeros(1, dtype=np.int64), self.lengths[index : index + 1])

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
            while length:
                part = self._tokens(number)[begin : begin + length]
                tokens[filled : filled + len(part)] = part
                filled, length = filled + len(part), length - len(part)
                number, begin = number + 1, 0  # where the document goes on
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

    def _open_all(self, shards: Sequence[ShardRecord], skip: bool) -> list[tuple[ShardRecord, np.ndarray, np.ndarray]]:
        """Each shard that can be read, with its documents' offsets and bytes."""
        found = []
        for chain in _chains(shards):
            try:
                whole = [(shard, *self._open(shard, skip)) for shard in chain]
            except Corrupt as damage:
                if not skip:
                    raise
                self.left_out |= {shard.name: str(damage) for shard in chain}
                self._left_out_shards += chain
            else:
                found += whole
        return found

    def _open(self, shard: ShardRecord, skip: bool) -> tuple[np.ndarray, np.ndarray]:
        """Its documents' offsets and bytes."""
        shard.check_sizes(self._directory)
        offsets = self._load(shard, "offsets")
        if offsets[0] != 0 or offsets[-1] != shard.num_tokens or (np.diff(offsets) < 1).any():
            raise Corrupt(other_content(shard.path(self._directory, "offsets")))
        if skip:
            self._load(shard, "tokens", mapped=True)  # its header: whoever reads it later would stop there
        return offsets, self._load(shard, "bytes")

    def _map(self, number: int) -> np.ndarray:
        return np.asarray(self._load(self._shards[number], "tokens", mapped=True))  # a memmap's slices are slow to make

    def _load(self, shard: ShardRecord, kind: FileKind, *, mapped: bool = False) -> np.ndarray:
        path = shard.path(self._directory, kind)
        expected = {"tokens": shard.num_tokens, "offsets": shard.num_documents + 1, "bytes": shard.num_documents}
        try:
            array: np.ndarray = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
        except OSError as error:
            raise Corrupt(out_of_reach(path, error)) from error
        except (ValueError, EOFError) as error:
            raise Corrupt(other_content(path, f"cannot be read ({error})")) from error
        if array.shape != (expected[kind],):
            raise Corrupt(other_content(path, f"shape {array.shape} instead of ({expected[kind]},)"))
        return array


def _starts(shards: Sequence[ShardRecord]) -> np.ndarray:
    """[D] which of all shards' documents are the first parts of documents."""
    begins = np.ones(sum(shard.num_documents for shard in shards), dtype=bool)
    firsts = np.cumsum([0, *(shard.num_documents for shard in shards)])[:-1]
    begins[firsts[[shard.continues for shard in shards]]] = False
    return np.flatnonzero(begins)


def _chains(shards: Sequence[ShardRecord]) -> list[list[ShardRecord]]:
    """Shards in a row that share documents, together."""
    chains: list[list[ShardRecord]] = []
    for shard in shards:
        if shard.continues:
            chains[-1].append(shard)
        else:
            chains.append([shard])
    return chains
