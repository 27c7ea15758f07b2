"""Carried state by row: one carry per micro-batch, and its place in the whole for checkpoints.

In a checkpoint the carry `name` of all micro-batches is one tensor of shape [G * rows, ...], cut where the workers'
shares are, so that any worker count can read its own rows.
"""

import math
from collections.abc import Sequence

from torch import Tensor

from pretrain.checkpoint.piece import Piece, Reader
from pretrain.contract import Carry, Model
from pretrain.rng import INITIAL_CARRY, seed_everything


def initial_carries(model: Model, share: Sequence[int], rows: int, seed: int) -> list[Carry | None]:
    """A fresh carry for each micro-batch of `share`, drawn from that micro-batch's own seed."""
    carries = []
    for micro_batch in share:
        seed_everything(seed, INITIAL_CARRY, micro_batch)
        carries.append(model.initial_carry(rows))
    return carries


def carry_pieces(carries: Sequence[Carry | None], share: Sequence[int], num_micro_batches: int) -> list[Piece]:
    """The carries of this worker's micro-batches as pieces of the whole run's carry."""
    return [
        Piece(f"carry/{name}", (num_micro_batches * value.shape[0], *value.shape[1:]), start, value.reshape(-1))
        for carry, micro_batch in zip(carries, share, strict=True)
        for name, value, start in _placed(carry, micro_batch)
    ]


def restore_carries(carries: Sequence[Carry | None], share: Sequence[int], reader: Reader) -> list[Carry | None]:
    """The saved carries of the micro-batches of `share`, shaped and placed as the given fresh ones."""
    restored: list[Carry | None] = []
    for carry, micro_batch in zip(carries, share, strict=True):
        found = {
            name: reader.read(f"carry/{name}", start, value.numel()).view(value.shape).to(value)
            for name, value, start in _placed(carry, micro_batch)
        }
        restored.append(found if carry is not None else None)
    return restored


def _placed(carry: Carry | None, micro_batch: int) -> list[tuple[str, Tensor, int]]:
    """(name, value, its first element's place in the whole) of one micro-batch's carry."""
    if carry is None:
        return []
    return [(name, value, micro_batch * math.prod(value.shape)) for name, value in sorted(carry.items())]
