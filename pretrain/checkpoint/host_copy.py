"""A copy of a worker's pieces in host memory that is kept from save to save, so that training may change the state."""

import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pretrain.checkpoint.piece import Piece

CHUNK_BYTES = 2**26
"""Of memory that is asked for at once: a power of two, to which the allocator of pinned memory rounds up."""
_ALIGNMENT = 64


@dataclass(frozen=True, slots=True)
class _Part:
    """Some elements of a piece, and where they go."""

    piece: Piece
    offset: int
    """In the piece."""
    count: int
    chunk: int
    start: int
    """In the chunk, in bytes."""

    @property
    def num_bytes(self) -> int:
        return self.count * self.piece.tensor.element_size()


class _Needed(NamedTuple):
    """Memory for some parts."""

    sizes: list[int]
    """Of each chunk, in bytes."""
    pinned: bool


class HostCopy:
    """Memory for one copy of a worker's state; pinned where the state is on an accelerator."""

    def __init__(self) -> None:
        self._chunks: list[Tensor] = []
        self._preparing: threading.Thread | None = None

    @property
    def num_bytes(self) -> int:
        return sum(chunk.numel() for chunk in self._chunks)

    def prepare(self, pieces: Iterable[Piece]) -> None:
        """Begin to make the memory that `take` needs for such pieces, on a thread, which `take` waits for: to get it
        from the system takes several times as long as to copy."""
        needed = _needed(_parts(pieces))
        self._preparing = threading.Thread(target=self._prepare, args=(needed,), name="prepare copy", daemon=True)
        self._preparing.start()

    def wait(self) -> None:
        """Until what was begun to be prepared is."""
        if self._preparing is not None:
            self._preparing.join()

    @torch.no_grad()
    def take(self, pieces: Iterable[Piece]) -> list[Piece]:
        """The same elements, which nothing changes until the next call; complete when this returns."""
        self.wait()
        parts = list(_parts(pieces))
        self._make_room(_needed(parts))
        copies, devices = [], set()
        for part in parts:
            source = part.piece.tensor.detach().reshape(-1)[part.offset : part.offset + part.count]
            target = self._memory(part).view(source.dtype)
            target.copy_(source, non_blocking=True)
            devices.add(source.device)
            copies.append(Piece(part.piece.name, part.piece.shape, part.piece.start + part.offset, target))
        for device in devices:
            if device.type == "cuda":
                torch.cuda.current_stream(device).synchronize()
        return copies

    def _prepare(self, needed: "_Needed") -> None:
        with suppress(RuntimeError):  # no memory: `take` meets that again, and tells it
            self._make_room(needed)
            for chunk in self._chunks:
                chunk.zero_()  # the system gives memory only to who writes to it

    def _make_room(self, needed: "_Needed") -> None:
        """Keep the chunks that are large enough."""
        del self._chunks[len(needed.sizes) :]
        for number, size in enumerate(needed.sizes):
            if number == len(self._chunks):
                self._chunks.append(torch.empty(size, dtype=torch.uint8, pin_memory=needed.pinned))
            elif self._chunks[number].numel() < size or self._chunks[number].is_pinned() < needed.pinned:
                self._chunks[number] = torch.empty(size, dtype=torch.uint8, pin_memory=needed.pinned)

    def _memory(self, part: _Part) -> Tensor:
        return self._chunks[part.chunk][part.start : part.start + part.num_bytes]


def _parts(pieces: Iterable[Piece]) -> Iterator[_Part]:
    """The pieces one after another, cut where a chunk ends."""
    chunk, used = 0, 0
    for piece in pieces:
        size, count, offset = piece.tensor.element_size(), piece.tensor.numel(), 0
        while True:
            used = -(-used // _ALIGNMENT) * _ALIGNMENT
            if used >= CHUNK_BYTES:
                chunk, used = chunk + 1, 0
            part = _Part(piece, offset, min(count - offset, (CHUNK_BYTES - used) // size), chunk, used)
            yield part
            used, offset = used + part.num_bytes, offset + part.count
            if offset == count:
                break


def _needed(parts: Iterable[_Part]) -> _Needed:
    sizes: list[int] = []
    pinned = False
    for part in parts:
        sizes += [0] * (part.chunk + 1 - len(sizes))
        sizes[part.chunk] = max(sizes[part.chunk], part.start + part.num_bytes)
        pinned |= part.piece.tensor.device.type == "cuda"
    return _Needed(sizes, pinned)
