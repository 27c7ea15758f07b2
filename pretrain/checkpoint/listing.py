"""What checkpoints a run has."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from data_pipeline.config import SegueError
from pretrain.checkpoint.layout import Place, checkpoints_of, places
from pretrain.checkpoint.manifest import read_complete


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
    problem: str | None = None
    """Why it cannot be read, as far as one sees without reading the tensors (`verify` reads them)."""

    @property
    def complete(self) -> bool:
        return self.problem is None


def list_checkpoints(run: Path) -> list[CheckpointInfo]:
    """The oldest step first."""
    return [_inspect(checkpoints_of(run), place) for place in places(run)]


def _inspect(folder: Path, place: Place) -> CheckpointInfo:
    path = folder / place.name
    num_bytes = sum(file.stat().st_size for file in path.iterdir())
    try:
        manifest = read_complete(path)
    except SegueError as error:
        return CheckpointInfo(step=place.step, path=path, bytes=num_bytes, problem=str(error))
    return CheckpointInfo(
        step=place.step,
        path=path,
        bytes=num_bytes,
        num_workers=manifest.num_workers,
        created=datetime.fromisoformat(manifest.created),
    )
