"""Whether a checkpoint has the state that a model and its optimizer have now: names, shapes and dtypes."""

from collections.abc import Iterable

import torch

from data_pipeline.config import Refused
from pretrain.checkpoint.piece import Piece
from pretrain.checkpoint.read import CheckpointReader
from pretrain.group import Group

SHOWN = 10
"""Of the tensors that do not fit."""

Kind = tuple[tuple[int, ...], torch.dtype]
"""Shape of the whole tensor, and dtype."""


def check_state(reader: CheckpointReader, expected: Iterable[Piece], group: Group) -> None:
    """Raise Refused, the same on every worker, unless the checkpoint has just the tensors that the pieces are of.

    Called by every worker with the pieces that it owns.
    """
    own = {piece.name: (tuple(piece.shape), piece.tensor.dtype) for piece in expected}
    shares: list[dict[str, Kind]] = group.gather_to_leader(own)
    misfits: list[str] = group.tell(_misfits(reader, shares) if group.leads else None)
    if misfits:
        more = [f"and {len(misfits) - SHOWN} more"] if len(misfits) > SHOWN else []
        raise Refused(
            f"{reader.path} does not fit the model and optimizer of this run:\n  "
            + "\n  ".join([*misfits[:SHOWN], *more])
            + "\ngo on with the version of the code that saved it, or start a new run"
        )


def _misfits(reader: CheckpointReader, shares: list[dict[str, Kind]]) -> list[str]:
    """A line for each tensor that does not fit."""
    now = {name: kind for share in shares for name, kind in share.items()}
    saved: dict[str, Kind] = {name: (reader.shape(name), reader.dtype(name)) for name in reader.names()}
    lines = [f"{name}: the checkpoint has none" for name in sorted(now.keys() - saved.keys())]
    lines += [f"{name}: only the checkpoint has it" for name in sorted(saved.keys() - now.keys())]
    for name in sorted(now.keys() & saved.keys()):
        for what, was, is_now in zip(("shape", "dtype"), saved[name], now[name], strict=True):
            if was != is_now:
                lines.append(f"{name}: {what} {was} in the checkpoint, {is_now} in the run")
    return lines
