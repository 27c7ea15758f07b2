"""Folders that may not be read, in tests that may run as root."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NOBODY = 65534


@contextmanager
def unreadable(folder: Path, top: Path) -> Iterator[None]:
    """Within it this process may not look into the folder, but into those above it that the test has made (`top` is
    pytest's `tmp_path`)."""
    is_root = os.geteuid() == 0
    above = [one for one in folder.parents if one.is_relative_to(top.parents[1])] if is_root else []
    modes = [one.stat().st_mode for one in above]
    folder.chmod(0)
    for one, mode in zip(above, modes, strict=True):
        one.chmod(mode | 0o55)
    if is_root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)
        for one, mode in zip(above, modes, strict=True):
            one.chmod(mode)
        folder.chmod(0o755)
