"""Where a run's checkpoints lie, and what their files are called.

    <run>/checkpoints/latest.json                               the pointer: which checkpoint is the newest
    <run>/checkpoints/step-000000100/manifest.json              what the checkpoint holds, written last
                                     worker-00000.safetensors   what each worker wrote
    <run>/checkpoints/step-000000100-r1/                        the same step saved once more, which replaces it
    <run>/checkpoints/step-000000200.partial-6fd1c2a0/          a save that is not, or never was, finished, or a part
                                                                of a checkpoint that is being removed
    <run>/checkpoints/step-000000100.aside-6fd1c2a0/            whole; removed next, unless somebody reads it after all
    <run>/checkpoints/step-000000100.pinned.json                it stays until it is unpinned
    <run>/checkpoints/step-000000100.held-6fd1c2a0.json         somebody reads it

A directory whose name is only a step and a revision is complete: it gets that name by one rename, after all in it is
on the disk. A step that is saved again (a run resumed from an older checkpoint gets there a second time) goes to the
next revision instead of over the old one, so that at no moment there is no good checkpoint.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

MANIFEST = "manifest.json"
PARTIAL = ".partial-"
ASIDE = ".aside-"
HELD = ".held-"
WORKER_FILE_PATTERN = r"^worker-\d{5,}\.safetensors$"
_DIRECTORY = re.compile(r"step-(\d{9,})(?:-r([1-9]\d*))?")
_LEFTOVER = re.compile(rf"({_DIRECTORY.pattern}|latest\.json){re.escape(PARTIAL)}[0-9a-f]{{8}}")
_LEFT_ASIDE = re.compile(rf"(?P<name>{_DIRECTORY.pattern}){re.escape(ASIDE)}[0-9a-f]{{8}}")


@dataclass(frozen=True, order=True, slots=True)
class Place:
    """A checkpoint's directory by what its name says; places sort from the oldest to the newest."""

    step: int
    revision: int = 0

    @property
    def name(self) -> str:
        """Of the directory.

        >>> Place(100).name, Place(100, revision=2).name
        ('step-000000100', 'step-000000100-r2')
        """
        return f"step-{self.step:09d}" + (f"-r{self.revision}" if self.revision else "")

    def partial_name(self) -> str:
        """A new name, under which no worker of an earlier, killed save can still be writing."""
        return f"{self.name}{PARTIAL}{uuid4().hex[:8]}"

    def aside_name(self) -> str:
        """A new name, under which it is looked at once more before it is removed."""
        return f"{self.name}{ASIDE}{uuid4().hex[:8]}"


def place_of(name: str) -> Place | None:
    """The place that a directory's name says, or None where it is no finished checkpoint's.

    >>> place_of("step-000000100-r2"), place_of("step-000000100.partial-6fd1c2a0")
    (Place(step=100, revision=2), None)
    """
    match = _DIRECTORY.fullmatch(name)
    return Place(int(match[1]), int(match[2] or 0)) if match else None


def checkpoints_of(run: Path) -> Path:
    """The folder that holds all checkpoints of the run."""
    return run / "checkpoints"


def pin_of(run: Path, place: Place) -> Path:
    return checkpoints_of(run) / f"{place.name}.pinned.json"


def hold_of(checkpoint: Path, token: str) -> Path:
    """Of one reader, beside the checkpoint that it reads."""
    return checkpoint.with_name(f"{checkpoint.name}{HELD}{token}.json")


def pointer_of(run: Path) -> Path:
    return checkpoints_of(run) / "latest.json"


def worker_file(rank: int) -> str:
    return f"worker-{rank:05d}.safetensors"


def places(run: Path) -> list[Place]:
    """Of every finished checkpoint that the run has, sound or not, the oldest first."""
    folder = checkpoints_of(run)
    if not folder.is_dir():
        return []
    found = (place_of(path.name) for path in folder.iterdir() if path.is_dir())
    return sorted(place for place in found if place is not None)


def leftovers(run: Path) -> list[Path]:
    """What saves and removals that were killed have left behind, of no use to anybody; nothing of another make."""
    folder = checkpoints_of(run)
    return sorted(path for path in folder.iterdir() if _LEFTOVER.fullmatch(path.name)) if folder.is_dir() else []


def left_aside(run: Path) -> dict[Path, Path]:
    """Whole checkpoints that a removal has moved aside and not decided on yet -> where they belong."""
    folder = checkpoints_of(run)
    found = [_LEFT_ASIDE.fullmatch(path.name) for path in sorted(folder.iterdir())] if folder.is_dir() else []
    return {folder / match[0]: folder / match["name"] for match in found if match}
