"""The content of a gzip file (RFC 1952), in small steps: all that is before damage is given before the damage is told.

The standard library's reader loses what it has read ahead, which may be all of a file.
"""

import gzip
import zlib
from collections.abc import Generator, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    Inflater = zlib._Decompress

MAGIC = b"\x1f\x8b"
WITH_HEADER = 31
"""What zlib calls the format."""
STEP = 1 << 16
"""Bytes that are read, and at most come out, at a time."""


def gzip_content(file: BinaryIO) -> Iterator[bytes]:
    """All members' content, from the file's start; zeros behind one are passed over. EOFError if the file ends within
    one; zlib.error or gzip.BadGzipFile for other damage."""
    data = file.read(STEP)
    while data:
        data += b"" if len(data) > 1 else file.read(1)
        if data[:2] != MAGIC[: len(data)]:
            raise gzip.BadGzipFile(f"no gzip file: {data[:2]!r} where a member should begin")
        data = yield from _member(file, data)
        while not (data := data.lstrip(b"\0")) and (data := file.read(STEP)):
            pass


def _member(file: BinaryIO, data: bytes) -> Generator[bytes, None, bytes]:
    """Its content, and returns what was read of what comes behind it."""
    inflater = zlib.decompressobj(WITH_HEADER)
    while True:
        before = inflater.copy()
        try:
            part = inflater.decompress(data, STEP)
        except zlib.error:
            yield from _up_to_damage(before, data)
            raise
        if part:
            yield part
        if inflater.eof:
            return inflater.unused_data
        data = inflater.unconsumed_tail
        if not data and len(part) < STEP and not (data := file.read(STEP)):
            raise EOFError("the file ends within a member")


def _up_to_damage(inflater: "Inflater", data: bytes) -> Iterator[bytes]:
    """What comes out before an error that is less than a step away, by ever smaller steps."""
    size = STEP // 2
    while size:
        further = inflater.copy()
        try:
            part = further.decompress(data, size)
        except zlib.error:
            size //= 2
            continue
        if part:
            yield part
        inflater, data = further, further.unconsumed_tail
        size = min(size, len(part))
    with suppress(zlib.error):  # the last bytes come in the call that meets the damage, if it gets that far
        for at in range(len(data)):
            if part := inflater.decompress(data[at : at + 1]):
                yield part
