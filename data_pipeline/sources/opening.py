"""Opening a file of a corpus: plain, gzip or Zstandard, told by its name; what comes out is bounded."""

import gzip
import io
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any, BinaryIO, cast

import zstandard

from data_pipeline.sources.byte_ranges import Range
from data_pipeline.sources.document import Span
from data_pipeline.sources.folder import Folder
from data_pipeline.sources.zstandard_frames import check_whole

MAX_EXPANSION = 200
"""What grows by more than this (beyond its first MiB) when it is decompressed is cut off there, and counted."""


class Damaged(Exception):
    """What a file holds is not of its format, or ends too early."""


class ExpandsTooFar(Exception):
    """A file grows by more than `MAX_EXPANSION`."""


DAMAGE = (Damaged, EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError)
"""What a damaged file raises; other OSErrors mean that it could not be reached."""


def is_compressed(name: str) -> bool:
    """Such a file can only be read from its beginning."""
    return PurePosixPath(name).suffix in (".gz", ".zst")


def allowance(size: int) -> int:
    """Into how many bytes that many compressed ones may grow."""
    return (1 << 20) + MAX_EXPANSION * size


def byte_spans(name: str, size: int, piece_bytes: int) -> Iterator[Span]:
    """A file cut into spans of about `piece_bytes`, or whole if it is compressed."""
    step = size if is_compressed(name) or size <= piece_bytes else piece_bytes
    for start in range(0, max(size, 1), max(step, 1)):
        stop = min(start + step, size)
        yield Span(name, start, stop, stop - start)


def range_of(span: Span) -> Range:
    """The bytes of the uncompressed content that a span stands for."""
    return Range(span.start, sys.maxsize if is_compressed(span.name) else span.stop)


@contextmanager
def opened(folder: Folder, name: str) -> Iterator[io.BufferedReader]:
    """The file's uncompressed content; reading it raises ExpandsTooFar, OSError or one of `DAMAGE`."""
    with folder.open(name) as file:
        if not is_compressed(name):
            yield file
            return
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        stream = cast(BinaryIO, gzip.GzipFile(fileobj=file)) if name.endswith(".gz") else _zstandard(file)
        with io.BufferedReader(_Limited(stream, allowance(size)), 1 << 18) as limited:
            yield cast(io.BufferedReader, limited)


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
        data = self._stream.read(len(view))
        self._given += len(data)
        if self._given > self._limit:
            raise ExpandsTooFar(f"more than {self._limit} bytes come out of it")
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._stream.close()
        super().close()
