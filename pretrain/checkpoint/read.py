"""Loading: any flat range of any tensor, from as few bytes as it takes, each verified before it is handed out."""

import contextlib
from bisect import bisect_right
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from data_pipeline.config import Corrupt
from pretrain.checkpoint.dtypes import DTYPES
from pretrain.checkpoint.layout import Place, checkpoints_of, places
from pretrain.checkpoint.manifest import Manifest, StoredPiece, StoredTensor, piece_key, read_complete
from pretrain.checkpoint.pointer import pointed_place
from pretrain.checkpoint.sealed import bytes_of, hash_of
from pretrain.group import Group

ALONE = Group()


class CheckpointReader:
    """Random access to one checkpoint, whose files are mapped into memory; a `Reader`.

    Raises Corrupt, naming file and piece, at once where the manifest is damaged or a file missing or of another
    length, and on the first read of a piece whose bytes are not the ones written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest: Manifest = read_complete(path)
        self._files: dict[str, Any] = {}
        self._verified: set[tuple[str, int]] = set()

    def names(self) -> frozenset[str]:
        return frozenset(self.manifest.tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """Of the whole tensor; raises Corrupt naming it where the checkpoint has none such."""
        return self._tensor(name).shape

    def dtype(self, name: str) -> torch.dtype:
        """That the tensor was saved in; raises Corrupt naming it where the checkpoint has none such."""
        return DTYPES[self._tensor(name).dtype]

    def read(self, name: str, start: int, count: int) -> Tensor:
        """[count] flat elements, on the CPU in the dtype they were saved in, verified against their hashes."""
        tensor = self._tensor(name)
        if start < 0 or count < 0 or start + count > tensor.count:
            raise ValueError(f"{name}: elements {start}:{start + count} of a tensor of {tensor.count}")
        result = torch.empty(count, dtype=DTYPES[tensor.dtype])
        for piece in _touched(tensor, start, start + count):
            first, last = max(start, piece.start), min(start + count, piece.end)
            content = self._content(name, piece)
            result[first - start : last - start] = content[first - piece.start : last - piece.start]
        return result

    def pieces(self) -> Iterator[tuple[str, StoredPiece]]:
        """Every stored piece of every tensor, in an order that all readers of the checkpoint share."""
        for name, tensor in self.manifest.tensors.items():
            for piece in tensor.pieces:
                yield name, piece

    def verify_piece(self, name: str, piece: StoredPiece) -> None:
        """Raises Corrupt, naming it, unless the piece's bytes are the ones written."""
        self._content(name, piece)

    def close(self) -> None:
        """Let go of the files; reading opens them again."""
        self._files.clear()

    def _tensor(self, name: str) -> StoredTensor:
        try:
            return self.manifest.tensors[name]
        except KeyError:
            raise Corrupt(f"{self.path}: has no tensor {name}") from None

    def _content(self, name: str, piece: StoredPiece) -> Tensor:
        """[piece.count] the mapped memory of the file, not to be handed out: it may change under the reader."""
        key = piece_key(name, piece.start)
        where = f"{self.path / piece.file}: piece {key}"
        try:
            content: Tensor = self._file(piece.file).get_tensor(key)
        except (SafetensorError, OSError) as error:
            raise Corrupt(f"{where}: {error}") from error
        expected = DTYPES[self.manifest.tensors[name].dtype]
        if content.dtype != expected or content.shape != (piece.count,):
            raise Corrupt(f"{where}: {content.dtype} {list(content.shape)}, not {expected} [{piece.count}] as written")
        if (name, piece.start) not in self._verified:
            if hash_of(bytes_of(content)) != piece.hash:
                raise Corrupt(f"{where}: its bytes do not have the hash in the manifest")
            self._verified.add((name, piece.start))
        return content

    def _file(self, file: str) -> Any:
        if file not in self._files:
            self._files[file] = safe_open(self.path / file, framework="pt", device="cpu")
        return self._files[file]


def _touched(tensor: StoredTensor, start: int, end: int) -> Iterator[StoredPiece]:
    index = bisect_right(tensor.pieces, start, key=lambda piece: piece.start) - 1
    while start < end:
        yield tensor.pieces[index]
        start = tensor.pieces[index].end
        index += 1


def verify(path: Path) -> list[str]:
    """All that is wrong with a checkpoint, each naming file and piece; reads every byte of it."""
    try:
        manifest = Manifest.read(path)
    except Corrupt as error:
        return [str(error)]
    problems = list(manifest.file_problems(path).values())
    return problems or _damaged(CheckpointReader(path))


def _damaged(reader: CheckpointReader, *, share: slice = slice(None)) -> list[str]:
    """What is wrong with these of the reader's pieces."""
    problems = []
    for name, piece in list(reader.pieces())[share]:
        try:
            reader.verify_piece(name, piece)
        except Corrupt as error:
            problems.append(str(error))
    return problems


def latest(run: Path) -> Path | None:
    """The checkpoint that the pointer names; without a pointer to a complete one, the complete one of the last step."""
    for place in _newest_first(run):
        path = checkpoints_of(run) / place.name
        with contextlib.suppress(Corrupt):
            read_complete(path)
            return path
    return None


def newest_good(run: Path, *, log: Callable[[str], None], group: Group = ALONE) -> CheckpointReader:
    """The newest checkpoint of which every byte is as it was written; says through `log` which it passed over, and why.

    First the one that the pointer names, then those of earlier steps, backward, and only then those of later steps,
    which belong to a course that the run has left. Called by every worker of the group: each verifies a share of the
    pieces, all come to the same checkpoint. Raises Corrupt on all where the run has no good one.
    """
    candidates: list[Place] = group.gather(_newest_first(run, log=log) if group.leads else [])[0]
    passed_over = []
    for place in candidates:
        path = checkpoints_of(run) / place.name
        reader, problems = _examined(path, group)
        if reader is not None and not problems:
            return reader
        passed_over.append(path.name)
        if group.leads:
            log(f"checkpoint {path.name} is not good, going back to the one before: {'; '.join(problems)}")
    raise Corrupt(f"{checkpoints_of(run)}: no good checkpoint; damaged: {', '.join(passed_over) or 'none, it has none'}")
