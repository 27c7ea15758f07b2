"""Content out of .gz, .tgz and .zst, told by the name: bounded, and never cut off in silence."""

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any, BinaryIO, cast

import zstandard

from data_pipeline.archives.gzip_members import gzip_content
from data_pipeline.archives.zstandard_frames import zstandard_content

MAX_EXPANSION = 200
"""What grows by more than this (beyond its first MiB) when it is decompressed is cut off there, and counted."""

BUFFER = 1 << 18


class Damaged(Exception):
    """What a file holds is not of its format, or ends too early."""


class CutOff(Damaged):
    """It ends too early."""


class ExpandsTooFar(Exception):
    """A file grows by more than is allowed."""


DAMAGE = (Damaged, EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError)
"""What a damaged file raises; other OSErrors mean that it could not be reached."""


def is_compressed(name: str) -> bool:
    """Such a file can only be read from its beginning."""
    return PurePosixPath(name).suffix in (".gz", ".tgz", ".zst")


def allowance(size: int, expansion: int = MAX_EXPANSION) -> int:
    """Into how many bytes that many compressed ones may grow."""
    return (1 << 20) + expansion * size


@contextmanager
def decompressed(file: BinaryIO, name: str, expansion: int = MAX_EXPANSION) -> Iterator[BinaryIO]:
    """The uncompressed content of a seekable file of that name; reading it raises ExpandsTooFar, OSError or one of
    `DAMAGE`, after all that comes before has been given to who reads it by lines or through `InSteps`."""
    if not is_compressed(name):
        yield file
        return
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    content = zstandard_content(file) if name.endswith(".zst") else gzip_content(file)
    with io.BufferedReader(_Limited(content, allowance(size, expansion)), BUFFER) as limited:
        yield cast(BinaryIO, limited)


class InSteps:
    """A stream for readers of blocks: `read` gives less than was asked for, not an error, where there is damage or the
    end, and the error or nothing after that."""

    def __init__(self, stream: BinaryIO) -> None:
        buffered = cast(io.BufferedReader, stream)  # as io.BytesIO is, which has the same methods
        self.read, self.tell = buffered.read1, buffered.tell


class _Limited(io.RawIOBase):
    """The chunks as a stream, that raises ExpandsTooFar where there comes more than `limit` bytes. An error stays."""

    def __init__(self, chunks: Iterator[bytes], limit: int) -> None:
        self._chunks, self._left = chunks, limit
        self._limit, self._given = limit, 0
        self._held = memoryview(b"")
        self._failure: Exception | None = None

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._given

    def readinto(self, buffer: Any) -> int:
        if not self._held:
            self._held = memoryview(self._next())
        size = min(len(buffer), len(self._held))
        memoryview(buffer)[:size] = self._held[:size]
        self._held = self._held[size:]
        self._given += size
        return size

    def _next(self) -> bytes:
        """The next chunk, or what is left of the limit; b"" at the end."""
        if self._failure is not None:
            raise self._failure
        try:
            chunk = next(self._chunks, b"")
        except EOFError as error:  # which readers of archives may take for a good end
            self._failure = CutOff(str(error))
            raise self._failure from error
        except Exception as error:  # whatever it is, no later call may find an end here
            self._failure = error
            raise
        if len(chunk) > self._left:
            self._failure = ExpandsTooFar(f"more than {self._limit} bytes come out of it")
            chunk = chunk[: self._left]
            if not chunk:
                raise self._failure
        self._left -= len(chunk)
        return chunk
