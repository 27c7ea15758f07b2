"""Whether there is room for what is about to be written."""

import shutil
from pathlib import Path

from pretrain.checkpoint.layout import checkpoints_of
from pretrain.checkpoint.phases import NotSaved


def check_space(run: Path, num_bytes: int) -> None:
    """Raise NotSaved unless a checkpoint of that many bytes fits on the disk that the run's checkpoints lie on."""
    check_room(checkpoints_of(run), num_bytes, what="a checkpoint", remedy=", or keep fewer checkpoints")


def check_room(folder: Path, num_bytes: int, *, what: str, remedy: str = "") -> None:
    """Raise NotSaved, naming what is needed and what is free, unless so many bytes fit on the folder's disk."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if num_bytes > free:
        raise NotSaved(
            f"{what} needs {num_bytes:,} bytes in {folder}, where {free:,} bytes are free; "
            f"free {num_bytes - free:,} bytes{remedy}"
        )
