"""Which checkpoints go, once there is a newer one; never the one that the run goes on from."""

from pathlib import Path

from data_pipeline.config import Corrupt, SegueError
from pretrain.checkpoint.durable import move_directory, remove
from pretrain.checkpoint.layout import Place, checkpoints_of, places
from pretrain.checkpoint.manifest import read_complete
from pretrain.checkpoint.pointer import pointed_place
from pretrain.checkpoint.read import newest_first


def retain(run: Path, *, keep: int) -> list[Place]:
    """Remove all checkpoints beyond the newest `keep` complete ones; returns the removed.

    Newest as in `newest_first`; an incomplete one counts as none, so that at least one complete checkpoint stays
    wherever there is one.
    """
    if keep < 1:
        raise ValueError(f"keep={keep}: at least one checkpoint has to stay")
    kept, removed = 0, []
    for place in newest_first(run, log=lambda _: None):
        if kept == keep:
            discard(run, place)
            removed.append(place)
        else:
            kept += _is_complete(run, place)
    return removed


def remove_replaced(run: Path) -> None:
    """Remove older revisions of the step that the pointer names, if what it names is complete."""
    try:
        pointed = pointed_place(run)
    except Corrupt:
        return
    if pointed is None or not _is_complete(run, pointed):
        return
    for place in places(run):
        if place.step == pointed.step and place.revision < pointed.revision:
            discard(run, place)


def discard(run: Path, place: Place) -> None:
    """Remove a finished checkpoint; cut off in the middle, it leaves a leftover and never half a checkpoint."""
    folder = checkpoints_of(run)
    doomed = folder / place.partial_name()
    move_directory(folder / place.name, doomed)
    remove(doomed)


def _is_complete(run: Path, place: Place) -> bool:
    try:
        read_complete(checkpoints_of(run) / place.name)
    except SegueError:
        return False
    return True
