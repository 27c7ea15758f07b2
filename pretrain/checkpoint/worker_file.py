"""One worker's safetensors file, written as a stream: at most one block of a piece is copied to the CPU at a time.

    8 bytes: length of the header | the header, JSON, filled up with spaces | the blocks' elements, one after another

A piece is stored in blocks of at most `MAX_BLOCK_BYTES`, each a piece of its own in the manifest with its own hash, so
that whoever reads a small range verifies little more than that range.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from pretrain.checkpoint.dtypes import DTypeName, dtype_name
from pretrain.checkpoint.manifest import piece_key
from pretrain.checkpoint.piece import Piece
from pretrain.checkpoint.sealed import bytes_of, hash_of

MAX_BLOCK_BYTES = 2**26
_ALIGNMENT = 64


@dataclass(frozen=True, slots=True)
class _Block:
    name: str
    dtype: DTypeName
    itemsize: int
    start: int
    """In the flattened tensor."""
    count: int

    @property
    def num_bytes(self) -> int:
        return self.count * self.itemsize


def file_size(pieces: Iterable[Piece]) -> int:
    """In bytes, of the file that `write_worker_file` makes of them."""
    blocks = [block for piece in _in_order(pieces) for block in _blocks(piece)]
    return len(_header(blocks)) + sum(block.num_bytes for block in blocks)


class Written(NamedTuple):
    """What one worker wrote of a tensor."""

    shape: tuple[int, ...]
    """Of the whole tensor."""
    dtype: DTypeName
    blocks: list[tuple[int, int, str]]
    """(start, count, hash) of each."""


def write_worker_file(path: Path, pieces: Iterable[Piece], *, after_block: Callable[[], None]) -> dict[str, Written]:
    """Write the pieces and bring them to the disk; returns what this worker holds of which tensor.

    A block is hashed on a thread of its own while it is written: both wait for memory or disk, not for Python.
    """
    ordered = _in_order(pieces)
    written = {piece.name: Written(piece.shape, dtype_name(piece.tensor.dtype), []) for piece in ordered}
    with open(path, "xb", buffering=0) as file, ThreadPoolExecutor(1, "hash") as hasher:
        _write_all(file, _header([block for piece in ordered for block in _blocks(piece)]))
        for piece in ordered:
            for block, content in zip(_blocks(piece), _contents(piece), strict=True):
                hashing = hasher.submit(hash_of, content)
                _write_all(file, content)
                written[block.name].blocks.append((block.start, block.count, hashing.result()))
                after_block()
        os.fsync(file.fileno())
    return written


def _write_all(file: FileIO, content: bytes | memoryview) -> None:
    """An unbuffered file may take less than it is given."""
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]


def _in_order(pieces: Iterable[Piece]) -> list[Piece]:
    """Those of the widest elements first, so that every block is aligned to its elements."""
    return sorted(pieces, key=lambda piece: (-piece.tensor.element_size(), piece.name, piece.start))


def _per_block(piece: Piece) -> int:
    return MAX_BLOCK_BYTES // piece.tensor.element_size()


def _blocks(piece: Piece) -> Iterator[_Block]:
    for offset in range(0, piece.tensor.numel(), _per_block(piece)):
        yield _Block(
            name=piece.name,
            dtype=dtype_name(piece.tensor.dtype),
            itemsize=piece.tensor.element_size(),
            start=piece.start + offset,
            count=min(_per_block(piece), piece.tensor.numel() - offset),
        )


def _contents(piece: Piece) -> Iterator[memoryview]:
    """The bytes of each block, copied to the CPU only when its turn comes."""
    flat: Tensor = piece.tensor.detach().reshape(-1)
    for offset in range(0, flat.numel(), _per_block(piece)):
        yield bytes_of(flat[offset : offset + _per_block(piece)].cpu())


def _header(blocks: list[_Block]) -> bytes:
    entries: dict[str, dict[str, object]] = {}
    offset = 0
    for block in blocks:
        entries[piece_key(block.name, block.start)] = {
            "dtype": block.dtype,
            "shape": [block.count],
            "data_offsets": [offset, offset + block.num_bytes],
        }
        offset += block.num_bytes
    text = json.dumps(entries).encode()
    text += b" " * (-(8 + len(text)) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text
