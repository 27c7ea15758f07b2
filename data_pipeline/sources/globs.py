"""Which files of this machine a glob means: with nothing passed over in silence that cannot be read.

`*`, `?` and `[...]` stand for part of a name, `**` for any number of folders. Links are followed, to folders too; under
`**` each folder is looked into once, under its own name if it has one below the first folder: so no link leads round
in a circle.
"""

import errno
import os
import re
from collections.abc import Iterator
from fnmatch import translate
from functools import lru_cache
from pathlib import Path, PurePosixPath
from stat import S_ISREG

from data_pipeline.config import BadInput

ANY_FOLDERS = "**"
FILE_SYSTEMS_OWN = "lost+found"
"""A folder at the root of some disks, which is nobody's to read; passed over."""
MAGIC = re.compile(r"[*?[]")


def files_matching(base: Path, pattern: str) -> dict[str, int]:
    """The size of each file below `base` that the pattern matches, by name. ValueError for no glob, OSError for a
    folder that cannot be read, BadInput for a link to nothing."""
    parts = _parts(pattern)
    if not base.exists():
        return {}
    found: dict[str, int] = {}
    for path in _matching(base, parts):
        size = _size(path)
        if size is not None:
            found[path.relative_to(base).as_posix()] = size
    return found


def matches(pattern: str, name: str) -> bool:
    """Whether a glob matches a relative name.

    >>> matches("**/*.txt", "a/b/c.txt"), matches("*.txt", "a/c.txt")
    (True, False)
    """
    return _match(_parts(pattern), PurePosixPath(name).parts)


def _parts(pattern: str) -> tuple[str, ...]:
    parts = PurePosixPath(pattern).parts
    if not parts:
        raise ValueError("it names nothing")
    if any(ANY_FOLDERS in part and part != ANY_FOLDERS for part in parts):
        raise ValueError("** stands for whole names of folders")
    return parts


def _match(pattern: tuple[str, ...], parts: tuple[str, ...]) -> bool:
    if not pattern or not parts:
        return not pattern and not parts
    if pattern[0] == ANY_FOLDERS:
        return any(_match(pattern[1:], parts[skipped:]) for skipped in range(len(parts)))
    return _is_match(pattern[0], parts[0]) and _match(pattern[1:], parts[1:])


def _is_match(part: str, name: str) -> bool:
    return _compiled(part).match(name) is not None


@lru_cache(maxsize=256)
def _compiled(part: str) -> re.Pattern[str]:
    return re.compile(translate(part))


def _matching(folder: Path, parts: tuple[str, ...]) -> Iterator[Path]:
    """Paths, perhaps some of them twice, and perhaps of no files."""
    part, rest = parts[0], parts[1:]
    if part == ANY_FOLDERS:
        for below in _folders(folder) if rest else ():
            yield from _matching(below, rest)
        return
    if MAGIC.search(part):
        found = (Path(entry) for entry in _entries(folder) if _is_match(part, entry.name))
    else:
        found = (path for path in (folder / part,) if os.path.lexists(path))
    for path in found:
        if not rest:
            yield path
        elif path.is_dir():
            yield from _matching(path, rest)


def _folders(start: Path) -> Iterator[Path]:
    """It and all folders below, each once: those that links lead to come last."""
    seen: set[tuple[int, int]] = set()
    folders, links = [start], list[Path]()
    while folders or links:
        folder = folders.pop() if folders else links.pop(0)
        status = folder.stat()
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        yield folder
        for entry in _entries(folder):
            if _is_folder(entry):
                (links if entry.is_symlink() else folders).append(Path(entry))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        return False


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except PermissionError:
        if folder.name != FILE_SYSTEMS_OWN:
            raise
        return []


def _size(path: Path) -> int | None:
    """None for what is no file, or no more."""
    try:
        status = path.stat()
    except OSError as error:
        if error.errno == errno.ENOENT and not os.path.lexists(path):
            return None  # it was removed just now
        if not path.is_symlink():
            raise
        raise BadInput(
            f"{path}: is a link to {os.readlink(path)}, which cannot be had ({error.strerror}); restore that, remove "
            "the link, or name the files without it"
        ) from error
    return status.st_size if S_ISREG(status.st_mode) else None
