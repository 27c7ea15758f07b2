"""One worker's safetensors file, written as a stream: at most one block of a piece is copied to the CPU at a time.

    8 bytes: length of the header | the header, JSON, filled up with spaces | the blocks' elements, one after another

A piece is stored in blocks of at most `MAX_BLOCK_BYTES`, each a piece of its own in the manifest with its own hash, so
that whoever reads a small range verifies little more than that range.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from pretrain.checkpoint.dtypes import DTypeName, dtype_name
from pretrain.checkpoint.manifest import StoredPiece, StoredTensor, piece_key
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


def write_worker_file(
    path: Path, pieces: Iterable[Piece], *, after_block: Callable[[], None]
) -> dict[str, StoredTensor]:
    """Write the pieces and bring them to the disk; returns what this worker holds of which tensor."""
    ordered = _in_order(pieces)
    stored: dict[str, StoredTensor] = {
        piece.name: StoredTensor(shape=piece.shape, dtype=dtype_name(piece.tensor.dtype), pieces=())
        for piece in ordered
    }
    written: dict[str, list[StoredPiece]] = {name: [] for name in stored}
    with open(path, "xb") as file:
        file.write(_header([block for piece in ordered for block in _blocks(piece)]))
        for piece in ordered:
            for block, content in zip(_blocks(piece), _contents(piece), strict=True):
                file.write(content)
                written[block.name].append(
                    StoredPiece(file=path.name, start=block.start, count=block.count, hash=hash_of(content))
                )
                after_block()
        file.flush()
        os.fsync(file.fileno())
    return {name: tensor.model_copy(update={"pieces": tuple(written[name])}) for name, tensor in stored.items()}


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
