"""Content out of .gz, .tgz and .zst, told by the name: bounded, and never cut off in silence."""

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any, BinaryIO, cast

import zstandard

from data_pipeline.archives.zstandard_frames import check_whole

MAX_EXPANSION = 200
"""What grows by more than this (beyond its first MiB) when it is decompressed is cut off there, and counted."""


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
    `DAMAGE`."""
    if not is_compressed(name):
        yield file
        return
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    stream = _zstandard(file) if name.endswith(".zst") else cast(BinaryIO, gzip.GzipFile(fileobj=file))
    with io.BufferedReader(_Limited(stream, allowance(size, expansion)), 1 << 18) as limited:
        yield cast(BinaryIO, limited)


def _zstandard(file: BinaryIO) -> BinaryIO:
    check_whole(file)
    return cast(BinaryIO, zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True))


class _Limited(io.RawIOBase):
    """Raises ExpandsTooFar if there comes more than `limit` bytes out of it."""

    def __init__(self, stream: BinaryIO, limit: int) -> None:
        self._stream, self._limit, self._given = stream, limit, 0

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._given

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)
        try:
            data = self._stream.read(len(view))
        except EOFError as error:  # which readers of archives may take for a good end
            raise CutOff(str(error)) from error
        self._given += len(data)
        if self._given > self._limit:
            raise ExpandsTooFar(f"more than {self._limit} bytes come out of it")
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._stream.close()
        super().close()
