"""The stored pieces of a checkpoint as memory-mapped tensors, each verified on first touch."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from data_pipeline.config import Corrupt
from pretrain.checkpoint.dtypes import DTYPES
from pretrain.checkpoint.manifest import Manifest, StoredPiece, piece_key
from pretrain.checkpoint.sealed import bytes_of, hash_of


class VerifiedPieces:
    """Content of the pieces that the manifest lists, from the files in its directory."""

    def __init__(self, directory: Path, manifest: Manifest) -> None:
        self.directory = directory
        self.manifest = manifest
        self._files: dict[str, Any] = {}
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
            content: Tensor = self._file(piece.file).get_tensor(key)
        except (SafetensorError, OSError) as error:
            raise Corrupt(f"{where}: {error}") from error
        dtype = DTYPES[self.manifest.tensors[name].dtype]
        if content.dtype != dtype or content.shape != (piece.count,):
            raise Corrupt(f"{where}: is {content.dtype} {list(content.shape)}, but {dtype} [{piece.count}] was written")
        if (name, piece.start) not in self._verified:
            if hash_of(bytes_of(content)) != piece.hash:
                raise Corrupt(f"{where}: its bytes do not have the hash in the manifest")
            self._verified.add((name, piece.start))
        return content

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

    def _file(self, file: str) -> Any:
        if file not in self._files:
            path = self.directory / file
            with open(path, "rb"):  # where storage hangs, it does so here: the library would stop all threads
                self._files[file] = safe_open(path, framework="pt", device="cpu")
        return self._files[file]
