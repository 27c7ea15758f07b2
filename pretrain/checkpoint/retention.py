"""Which checkpoints go, once there is a newer one.

Of the permanent ones the newest stay; a temporary one only while nothing newer is complete. What is pinned or held
stays, and so does the one that the run goes on from.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from data_pipeline.config import Corrupt, SegueError
from pretrain.checkpoint.durable import move_directory, remove
from pretrain.checkpoint.holds import Holds
from pretrain.checkpoint.layout import Place, checkpoints_of, left_aside, places
from pretrain.checkpoint.manifest import Manifest, read_complete
from pretrain.checkpoint.pins import pin_note
from pretrain.checkpoint.pointer import pointed_place
from pretrain.checkpoint.read import newest_first, verify


def retain(run: Path, *, keep: int | None, holds: Holds | None = None) -> list[Place]:
    """Remove the permanent checkpoints beyond the newest `keep` complete ones (None: none of them) and the temporary
    ones that are behind a complete one; returns the removed.

    Newest as in `newest_first`; an incomplete one counts as none, so that at least one complete checkpoint stays
    wherever there is one. `holds` remembers earlier looks; without it a hold of another host is live.
    """
    holds = holds or Holds(run)
    going = _superfluous(run, keep=keep, is_sound=lambda place: True)
    return [place for place in going if discard(run, place, holds) is None]


@dataclass(frozen=True, slots=True)
class Pruning:
    """What `prune` did, or would do."""

    removed: tuple[Place, ...]
    spared: dict[Place, str]
    """Why it stays, of each that would have gone otherwise."""
    damaged: dict[Place, str]
    """What is wrong, of each that was read."""


def prune(run: Path, *, keep: int, dry_run: bool = False, look_seconds: float = 12.0) -> Pruning:
    """Remove what `retain` would, having first read every byte of the checkpoints that are to stay.

    A damaged one counts as none, so nothing goes before `keep` good ones are found. Takes two looks, so many seconds
    apart, where somebody seems to read what is to go.
    """
    damaged: dict[Place, str] = {}

    def is_sound(place: Place) -> bool:
        problems = verify(checkpoints_of(run) / place.name)
        if problems:
            damaged[place] = "; ".join(problems)
        return not problems

    holds = Holds(run)
    going = _superfluous(run, keep=keep, is_sound=is_sound)
    for place in going:
        if pin_note(run, place) is not None:
            is_sound(place)
    if [place for place in going if holds.of(place)]:
        time.sleep(look_seconds)
    removed, spared = [], {}
    for place in going:
        reason = _protection(run, place, holds) if dry_run else discard(run, place, holds)
        if reason is None:
            removed.append(place)
        else:
            spared[place] = reason
    return Pruning(tuple(removed), spared, damaged)


def _superfluous(run: Path, *, keep: int | None, is_sound: Callable[[Place], bool]) -> list[Place]:
    """What goes, pinned and held ones included; `is_sound` is asked of those that stay."""
    if keep is not None and keep < 1:
        raise ValueError(f"keep={keep}: at least one checkpoint has to stay")
    kept, newer, going = 0, False, []
    for place in newest_first(run, log=lambda _: None):
        if kept == keep:
            going.append(place)
            continue
        manifest = _complete(run, place)
        if manifest is not None and manifest.temporary and newer:
            going.append(place)
        elif manifest is not None and is_sound(place):
            kept += not manifest.temporary
            newer = True
    return going


def remove_replaced(run: Path, holds: Holds | None = None) -> None:
    """Remove older revisions of the step that the pointer names, if what it names is complete."""
    try:
        pointed = pointed_place(run)
    except Corrupt:
        return
    if pointed is None or _complete(run, pointed) is None:
        return
    for place in places(run):
        if place.step == pointed.step and place.revision < pointed.revision:
            discard(run, place, holds or Holds(run))


def discard(run: Path, place: Place, holds: Holds) -> str | None:
    """Remove a finished checkpoint, or say why it stays; cut off in the middle, it leaves a leftover and never half a
    checkpoint. Who pins or holds it while its directory is moved aside gets it back."""
    if (reason := _protection(run, place, holds)) is not None:
        return reason
    folder = checkpoints_of(run)
    aside, doomed = folder / place.aside_name(), folder / place.partial_name()
    try:
        move_directory(folder / place.name, aside)
        if (reason := _protection(run, place, holds)) is not None:
            move_directory(aside, folder / place.name)
            return reason
        move_directory(aside, doomed)
    except FileNotFoundError:
        return "another process removes it or has just put it back"
    remove(doomed)
    with suppress(OSError):
        holds.forget(place)
    return None


def put_back(run: Path) -> None:
    """Undo the removals that were killed before they had decided, or are about to: theirs to try again."""
    for aside, path in left_aside(run).items():
        with suppress(OSError):
            move_directory(aside, path)


def _protection(run: Path, place: Place, holds: Holds) -> str | None:
    with suppress(Corrupt):
        if pointed_place(run) == place:
            return "the run goes on from it"
    note = pin_note(run, place)
    if note is not None:
        return "pinned" + (f": {note}" if note else "")
    holders = holds.of(place)
    return f"read by {', '.join(holders)}" if holders else None


def _complete(run: Path, place: Place) -> Manifest | None:
    try:
        return read_complete(checkpoints_of(run) / place.name)
    except SegueError:
        return None
