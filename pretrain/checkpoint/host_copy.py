"""A copy of a worker's pieces in host memory that is kept from save to save, so that training may change the state."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

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


class HostCopy:
    """Memory for one copy of a worker's state; pinned where the state is on an accelerator."""

    def __init__(self) -> None:
        self._chunks: list[Tensor] = []

    @property
    def num_bytes(self) -> int:
        return sum(chunk.numel() for chunk in self._chunks)

    @torch.no_grad()
    def take(self, pieces: Iterable[Piece]) -> list[Piece]:
        """The same elements, which nothing changes until the next call; complete when this returns."""
        parts = list(_parts(pieces))
        self._make_room(parts)
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

    def _make_room(self, parts: list[_Part]) -> None:
        """Keep the chunks that are large enough."""
        pinned = any(part.piece.tensor.device.type == "cuda" for part in parts)
        needed = [0] * (max((part.chunk for part in parts), default=-1) + 1)
        for part in parts:
            needed[part.chunk] = max(needed[part.chunk], part.start + part.num_bytes)
        del self._chunks[len(needed) :]
        for number, size in enumerate(needed):
            if number == len(self._chunks):
                self._chunks.append(torch.empty(size, dtype=torch.uint8, pin_memory=pinned))
            elif self._chunks[number].numel() < size or self._chunks[number].is_pinned() < pinned:
                self._chunks[number] = torch.empty(size, dtype=torch.uint8, pin_memory=pinned)

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
