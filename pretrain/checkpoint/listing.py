"""What checkpoints a run has."""

from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from data_pipeline.config import SegueError
from pretrain.checkpoint.holds import Holds
from pretrain.checkpoint.layout import Place, checkpoints_of, places
from pretrain.checkpoint.manifest import read_complete
from pretrain.checkpoint.pins import pin_note


@dataclass(frozen=True, slots=True)
class CheckpointInfo:
    """One checkpoint as it lies on the disk; of one that is not complete, only step, path, bytes and problem."""

    step: int
    path: Path
    bytes: int
    """On the disk, of all its files."""
    num_workers: int | None = None
    """That wrote it; it is read by any number."""
    created: datetime | None = None
    temporary: bool = False
    """Whether it goes once a newer one is complete."""
    pinned: str | None = None
    """What was said when it was pinned; None where it is not."""
    held_by: tuple[str, ...] = ()
    """Who reads it."""
    problem: str | None = None
    """Why it cannot be read, as far as one sees without reading the tensors (`verify` reads them)."""

    @property
    def complete(self) -> bool:
        return self.problem is None


def list_checkpoints(run: Path) -> list[CheckpointInfo]:
    """The oldest step first; one that a live run removes meanwhile is none."""
    holds = Holds(run)
    found: list[CheckpointInfo] = []
    for place in places(run):
        with suppress(FileNotFoundError):
            found.append(_inspect(run, place, holds))
    return found


def _inspect(run: Path, place: Place, holds: Holds) -> CheckpointInfo:
    path = checkpoints_of(run) / place.name
    info = CheckpointInfo(
        step=place.step,
        path=path,
        bytes=sum(file.stat().st_size for file in path.iterdir()),
        pinned=pin_note(run, place),
        held_by=tuple(holds.of(place)),
    )
    try:
        manifest = read_complete(path)
    except SegueError as error:
        return replace(info, problem=str(error))
    return replace(
        info,
        num_workers=manifest.num_workers,
        created=datetime.fromisoformat(manifest.created),
        temporary=manifest.temporary,
    )
