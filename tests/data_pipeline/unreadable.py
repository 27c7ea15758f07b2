"""Folders that may not be read, in tests that may run as root."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

NOBODY = 65534


@contextmanager
def open_folder() -> Iterator[Path]:
    """A folder that everybody may look into, as pytest's own is not."""
    with TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@contextmanager
def unreadable(folder: Path) -> Iterator[None]:
    """Within it this process may not look into a folder of an `open_folder`."""
    is_root = os.geteuid() == 0
    folder.chmod(0)
    if is_root:
        try:
            os.seteuid(NOBODY)
        except OSError as error:
            pytest.skip(f"this process may read everything, and cannot be another user ({error})")
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)
        folder.chmod(0o755)
