"""The stored pieces of a checkpoint as memory-mapped tensors, each verified on first touch.

What is verified is read, not looked at through the map: there a bad sector, or a file cut off since it was opened, is
an error that can be told, and here a signal (SIGBUS) that ends the process.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash
from safetensors import SafetensorError, safe_open
from torch import Tensor

from data_pipeline.config import Corrupt
from pretrain.checkpoint.dtypes import DTYPES
from pretrain.checkpoint.manifest import Manifest, StoredPiece, piece_key

READ_BYTES = 2**20
"""At a time: a block that stays in the processor's cache between reading and hashing."""


@dataclass(frozen=True, slots=True)
class _MappedFile:
    tensors: Any
    """The library's view of the file."""
    offsets: dict[str, int]
    """Of each piece's first byte, by its key."""


class VerifiedPieces:
    """Content of the pieces that the manifest lists, from the files in its directory."""

    def __init__(self, directory: Path, manifest: Manifest) -> None:
        self.directory = directory
        self.manifest = manifest
        self._files: dict[str, _MappedFile] = {}
        self._verified: set[tuple[str, int]] = set()

    def __iter__(self) -> Iterator[tuple[str, StoredPiece]]:
        """Every piece with its tensor's name, in an order that all readers of the checkpoint share."""
        for name, tensor in self.manifest.tensors.items():
            for piece in tensor.pieces:
                yield name, piece

    def content(self, name: str, piece: StoredPiece) -> Tensor:
        """[piece.count] the mapped memory of the file, to be copied from; raises Corrupt, naming file and piece."""
        key = piece_key(name, piece.start)
        where = f"{self.directory / piece.file}: piece {key}"
        try:
            file = self._file(piece.file)
            content: Tensor = file.tensors.get_tensor(key)
        except (SafetensorError, OSError, ValueError) as error:
            raise Corrupt(f"{where}: {error}") from error
        dtype = DTYPES[self.manifest.tensors[name].dtype]
        if content.dtype != dtype or content.shape != (piece.count,):
            raise Corrupt(f"{where}: is {content.dtype} {list(content.shape)}, but {dtype} [{piece.count}] was written")
        if (name, piece.start) not in self._verified:
            self._verify(where, piece, file.offsets[key], content.nbytes)
            self._verified.add((name, piece.start))
        return content

    def _verify(self, where: str, piece: StoredPiece, offset: int, num_bytes: int) -> None:
        """Raise Corrupt, saying where, unless the file has just the piece's bytes there."""
        try:
            found = hash_in_file(self.directory / piece.file, offset, num_bytes)
        except OSError as error:
            raise Corrupt(f"{where}: {error.strerror or error}") from error
        if found != piece.hash:
            raise Corrupt(f"{where}: its bytes do not have the hash in the manifest")

    def problems(self, pieces: list[tuple[str, StoredPiece]]) -> list[str]:
        """What is wrong with these of the pieces."""
        found = []
        for name, piece in pieces:
            try:
                self.content(name, piece)
            except Corrupt as error:
                found.append(str(error))
        return found

    def close(self) -> None:
        """Let go of the files; the next touch opens them again."""
        self._files.clear()

    def _file(self, file: str) -> "_MappedFile":
        if file not in self._files:
            path = self.directory / file
            offsets = _offsets(path)  # where storage hangs, it does so here: the library would stop all threads
            self._files[file] = _MappedFile(safe_open(path, framework="pt", device="cpu"), offsets)
        return self._files[file]


def hash_in_file(path: Path, offset: int, num_bytes: int) -> str:
    """As `hash_of`; raises OSError where so many bytes cannot be read there."""
    hashed, block, done = xxhash.xxh3_128(), memoryview(bytearray(min(READ_BYTES, num_bytes))), 0
    with open(path, "rb", buffering=0) as file:
        while done < num_bytes:
            count = os.preadv(file.fileno(), [block[: num_bytes - done]], offset + done)
            if count == 0:
                raise OSError(f"the file ends before byte {offset + num_bytes}, the last of it")
            hashed.update(block[:count])
            done += count
    return hashed.hexdigest()


def _offsets(path: Path) -> dict[str, int]:
    """By the header of a safetensors file; raises ValueError where that is none."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > os.fstat(file.fileno()).st_size:
            raise ValueError("its header is longer than the file")
        header = json.loads(file.read(length))
    try:
        return {key: 8 + length + entry["data_offsets"][0] for key, entry in header.items() if key != "__metadata__"}
    except (AttributeError, KeyError, IndexError, TypeError) as error:
        raise ValueError(f"its header is none of safetensors: {error!r}") from error
