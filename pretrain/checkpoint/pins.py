"""Pins: a checkpoint that is pinned stays, however old it gets, until it is unpinned."""

from datetime import UTC, datetime
from pathlib import Path

from data_pipeline.config import BadInput, Corrupt
from pretrain.checkpoint.durable import replace_file, sync_directory
from pretrain.checkpoint.layout import Place, checkpoints_of, pin_of, places
from pretrain.checkpoint.manifest import read_complete
from pretrain.checkpoint.sealed import seal, unseal


def pin(run: Path, step: int, *, note: str = "") -> Place:
    """Keep the checkpoint of this step for ever; raises BadInput where there is none, Corrupt where it is damaged."""
    place = _newest_of(run, step)
    read_complete(checkpoints_of(run) / place.name)
    path = pin_of(run, place)
    pinned = datetime.now(UTC).isoformat(timespec="seconds")
    replace_file(path, seal({"checkpoint": place.name, "note": note, "pinned": pinned}))
    if not (checkpoints_of(run) / place.name).is_dir():
        path.unlink(missing_ok=True)
        raise BadInput(f"checkpoint {step}: {run} removed it just now; pin another")
    return place


def unpin(run: Path, step: int) -> None:
    """Leave all checkpoints of this step to retention again; raises BadInput where none is pinned."""
    pinned = [pin_of(run, place) for place in places(run) if place.step == step and pin_of(run, place).exists()]
    if not pinned:
        raise BadInput(f"checkpoint {step}: {run} has none of this step that is pinned")
    for path in pinned:
        path.unlink(missing_ok=True)
    sync_directory(checkpoints_of(run))


def pin_note(run: Path, place: Place) -> str | None:
    """What was said when it was pinned; None where it is not pinned. A damaged pin is a pin."""
    path = pin_of(run, place)
    if not path.exists():
        return None
    try:
        return str(unseal(path).get("note", ""))
    except Corrupt:
        return "the pin's file is damaged"


def _newest_of(run: Path, step: int) -> Place:
    found = places(run)
    of_step = [place for place in found if place.step == step]
    if not of_step:
        steps = ", ".join(str(place.step) for place in found) or "none"
        raise BadInput(f"checkpoint {step}: {run} has no checkpoint of this step; it has {steps}")
    return of_step[-1]
