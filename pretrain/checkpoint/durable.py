"""Changes to the file system that are on the disk when they return, and whole or not there after a crash."""

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from pretrain.checkpoint.layout import PARTIAL


def sync_directory(path: Path) -> None:
    """Bring the names in a directory (created, renamed, removed) to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def create_directory(path: Path) -> None:
    """Create a directory and the missing ones above it."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        sync_directory(folder.parent)


def replace_file(path: Path, content: bytes, *, before_move: Callable[[], None] = lambda: None) -> None:
    """Give the file a new content in one move: whoever reads it sees the old or the new, never part of either.

    `before_move` is called directly before the move, with all that may hang behind it, and may raise to prevent it.
    """
    temporary = path.with_name(f"{path.name}{PARTIAL}{uuid4().hex[:8]}")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        before_move()
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def move_directory(source: Path, target: Path, *, before_move: Callable[[], None] = lambda: None) -> None:
    """Rename a directory within its parent, all in it being on the disk under the old name first; `before_move` as of
    `replace_file`."""
    sync_directory(source)
    before_move()
    os.rename(source, target)
    sync_directory(target.parent)


def remove(path: Path) -> None:
    """Remove a file or a directory with all in it; what cannot be removed stays, for the next save to sweep."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
