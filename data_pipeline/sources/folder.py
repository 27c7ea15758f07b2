"""A folder of files, on this machine or at any address that fsspec knows (`s3://`, `gs://`, `hf://`, `memory://`).

Names are relative to it, with slashes: they hold nothing of the address, so no credentials either. Those belong in the
environment or in fsspec's own configuration; what an address holds of them is never shown.
"""

import glob
import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, cast

from data_pipeline.config import BadInput
from data_pipeline.redaction import redact
from data_pipeline.sources.globs import files_matching

READ_AHEAD = 1 << 20
"""Bytes asked for at a time, at the least, where files are not on this machine."""

SETTLED_NS = 2_000_000_000
"""Coarsest step of the time stamps of file systems in use (FAT's)."""


class Unreachable(OSError):
    """What is at an address cannot be had."""


class Folder(Protocol):
    """Files below one directory."""

    @property
    def near(self) -> bool:
        """Whether a little of a file can be read for little."""

    @property
    def shown(self) -> str:
        """For messages."""

    def exists(self) -> bool:
        """Whether it can be there; an address is not asked."""

    def matching(self, pattern: str) -> dict[str, int]:
        """The size of the file of that name, or else of all that the glob matches, by name; ValueError for no glob,
        OSError where something cannot be read, BadInput for a link to nothing."""

    def open(self, name: str) -> io.BufferedReader:
        """For reading, buffered and seekable; OSError."""

    def stamp(self, name: str) -> str | None:
        """Another one whenever the file has changed; None where that cannot be told, or not yet."""


def folder_at(directory: str) -> Folder:
    """Of a path or of an address; BadInput for one of an unknown kind."""
    protocol, separator, path = directory.partition("://")
    if not separator:
        return LocalFolder(Path(directory))
    return LocalFolder(Path(path)) if protocol in ("file", "local") else _remote(directory)


class LocalFolder:
    """On this machine."""

    near = True

    def __init__(self, base: Path) -> None:
        self.base = base

    @property
    def shown(self) -> str:
        return str(self.base)

    def exists(self) -> bool:
        try:
            return self.base.is_dir()
        except OSError:
            return True  # or what is in it cannot be told, as `matching` will say

    def matching(self, pattern: str) -> dict[str, int]:
        literal = self.base / pattern
        if literal.is_file():
            return {literal.relative_to(self.base).as_posix(): literal.stat().st_size}
        return files_matching(self.base, pattern)

    def open(self, name: str) -> io.BufferedReader:
        return (self.base / name).open("rb")

    def stamp(self, name: str) -> str | None:
        """Size, and times of the last change of content and of anything: no program can set the latter.

        None shortly after a change: the next one might have the same time.
        """
        try:
            found = (self.base / name).stat()
        except OSError:
            return None
        if time.time_ns() - max(found.st_mtime_ns, found.st_ctime_ns) < SETTLED_NS:
            return None
        return f"{found.st_size}/{found.st_mtime_ns}/{found.st_ctime_ns}"


class RemoteFolder:
    """At an address."""

    near = False

    def __init__(self, address: str) -> None:
        import fsspec  # needed by few

        self.shown = redact(address)
        with _plain_errors(self.shown):
            try:
                files, root = fsspec.url_to_fs(address)
            except (ImportError, ValueError) as error:
                raise BadInput(
                    f"corpus.directory {self.shown}: {redact(str(error))}; install what fsspec needs for it, or "
                    "correct the address"
                ) from None
        self._files, self._root = cast(Any, files), str(root).rstrip("/")

    def exists(self) -> bool:
        return True

    def matching(self, pattern: str) -> dict[str, int]:
        with _plain_errors(self.shown):
            literal = f"{self._root}/{pattern}"
            if self._files.isfile(literal):
                found = {literal: self._files.info(literal)}
            else:
                found = self._files.glob(f"{glob.escape(self._root)}/{pattern}", detail=True)
        return {self._name(path): self._size(path, info) for path, info in found.items() if info["type"] == "file"}

    def open(self, name: str) -> io.BufferedReader:
        with _plain_errors(self.shown):
            raw = self._files.open(f"{self._root}/{name}", "rb")
        return io.BufferedReader(_Remote(raw, self.shown), READ_AHEAD)

    def stamp(self, name: str) -> str | None:
        return None

    def _name(self, path: str) -> str:
        return PurePosixPath(path).relative_to(PurePosixPath(self._root)).as_posix()

    def _size(self, path: str, info: dict[str, Any]) -> int:
        if info.get("size") is None:
            raise BadInput(f"{self.shown}/{self._name(path)}: its server does not tell its size; copy the file first")
        return int(info["size"])


@lru_cache(maxsize=16)
def _remote(address: str) -> RemoteFolder:
    return RemoteFolder(address)


class _Remote(io.RawIOBase):
    """A file of fsspec; all that goes wrong is `Unreachable`, without secrets."""

    def __init__(self, file: Any, shown: str) -> None:
        self._file, self._shown = file, shown

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)
        with _plain_errors(self._shown):
            data = self._file.read(len(view))
        view[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        with _plain_errors(self._shown):
            return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def close(self) -> None:
        self._file.close()
        super().close()


@contextmanager
def _plain_errors(shown: str) -> Iterator[None]:
    """What back ends raise has no common base, and often tells the whole address."""
    try:
        yield
    except BadInput:
        raise
    except Exception as error:
        raise Unreachable(f"{shown}: {type(error).__name__}: {redact(str(error))}") from None
