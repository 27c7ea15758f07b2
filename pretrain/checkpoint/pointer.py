"""`latest.json`: which checkpoint a run goes on from."""

from collections.abc import Callable
from pathlib import Path

from data_pipeline.config import Corrupt
from pretrain.checkpoint.durable import replace_file
from pretrain.checkpoint.layout import Place, place_of, pointer_of
from pretrain.checkpoint.sealed import seal, unseal


def move_pointer(run: Path, place: Place, *, before_move: Callable[[], None] = lambda: None) -> None:
    """Let the run go on from this checkpoint: after a save, or to go back to an older one; `before_move` as of
    `replace_file`."""
    replace_file(pointer_of(run), seal({"checkpoint": place.name, "step": place.step}), before_move=before_move)


def pointed_place(run: Path) -> Place | None:
    """The place that the pointer names, or None where the run has no pointer; raises Corrupt where it is damaged."""
    path = pointer_of(run)
    if not path.exists():
        return None
    name = unseal(path).get("checkpoint")
    place = place_of(name) if isinstance(name, str) else None
    if place is None:
        raise Corrupt(f"{path}: checkpoint={name!r} is no name of a checkpoint")
    return place
