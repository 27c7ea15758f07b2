"""Documents as bytes out of plain, gzip or Zstandard files, in bounded memory whatever the file holds.

A document belongs to the range of bytes in which it starts; for `blank_line`, in which the blank line before it starts
(the first document: the range that starts at 0). So ranges that cover a file give each of its documents exactly once.
"""

import gzip
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, cast

import zstandard

from data_pipeline.config import BadInput
from data_pipeline.sources.document import Report
from data_pipeline.sources.zstandard_frames import check_whole

DocumentUnit = Literal["file", "line", "blank_line"]

MAX_EXPANSION = 200
"""A compressed file that grows by more than this (beyond its first MiB) is cut off there, and counted."""


@dataclass(frozen=True, slots=True)
class Found:
    """A document's bytes, without the newline that ends it."""

    offset: int
    """In the uncompressed file."""
    data: bytes


def is_compressed(path: Path) -> bool:
    """Such a file can only be read from its beginning."""
    return path.suffix in (".gz", ".zst")


def documents_in(
    path: Path, start: int, stop: int, *, unit: DocumentUnit, max_bytes: int, report: Report
) -> Iterator[Found]:
    """The documents of [start, stop); those longer than `max_bytes` are counted and left out. BadInput: unreadable."""
    try:
        with path.open("rb") as file, _content(path, file, report) as stream:
            if unit == "file":
                yield from _whole(stream, max_bytes, report)
                return
            position = _line_start(stream, start)
            lines = _lines(stream, position, max_bytes)
            yield from (_each_line if unit == "line" else _paragraphs)(lines, start, stop, max_bytes, report)
    except (OSError, EOFError, zlib.error, zstandard.ZstdError) as error:
        raise BadInput(f"{path}: cannot be read ({error}); repair the file or leave it out of the corpus") from error


class _Limited(io.RawIOBase):
    """Ends early if there comes more than `limit` bytes out of it."""

    def __init__(self, stream: BinaryIO, limit: int, report: Report) -> None:
        self._stream, self._left, self._report = stream, limit, report
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(cast(bytearray, buffer))
        data = b"" if self._ended else self._stream.read(min(len(view), self._left + 1))
        if len(data) > self._left:
            self._report.add("expands_too_far")
            self._ended = True
            data = data[: self._left]
        self._left -= len(data)
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._stream.close()
        super().close()


def _content(path: Path, file: BinaryIO, report: Report) -> BinaryIO:
    if not is_compressed(path):
        return file
    limit = (1 << 20) + MAX_EXPANSION * path.stat().st_size
    stream = gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else _zstandard(file)
    return cast(BinaryIO, io.BufferedReader(_Limited(cast(BinaryIO, stream), limit, report), 1 << 18))


def _zstandard(file: BinaryIO) -> zstandard.ZstdDecompressionReader:
    check_whole(file)
    return zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)


def _whole(stream: BinaryIO, max_bytes: int, report: Report) -> Iterator[Found]:
    data = stream.read(max_bytes + 1)
    if len(data) > max_bytes:
        report.add("too_long")
    else:
        yield Found(0, data)


def _line_start(stream: BinaryIO, start: int) -> int:
    """Puts the stream at the first line that starts at `start` or after, and says where that is."""
    if start == 0:
        return 0
    stream.seek(start - 1)
    position = start - 1
    while part := stream.readline(1 << 20):
        position += len(part)
        if part.endswith(b"\n"):
            break
    return position


def _lines(stream: BinaryIO, position: int, max_bytes: int) -> Iterator[tuple[int, bytes | None]]:
    """Where each line starts, and the line with its newline; None for one longer than `max_bytes`."""
    while line := stream.readline(max_bytes + 2):
        start, position = position, position + len(line)
        if len(line) == max_bytes + 2 and not line.endswith(b"\n"):
            while (rest := stream.readline(1 << 20)) and not rest.endswith(b"\n"):
                position += len(rest)
            position += len(rest)
            yield start, None
        else:
            yield start, line


def _each_line(
    lines: Iterator[tuple[int, bytes | None]], start: int, stop: int, max_bytes: int, report: Report
) -> Iterator[Found]:
    for offset, line in lines:
        if offset >= stop:
            return
        yield from _finished(offset, line, max_bytes, report)


def _paragraphs(
    lines: Iterator[tuple[int, bytes | None]], start: int, stop: int, max_bytes: int, report: Report
) -> Iterator[Found]:
    ours = start == 0
    paragraph: bytearray | None = bytearray()
    first: int | None = None
    for offset, line in lines:
        if line is not None and not line.strip():
            if first is not None:
                yield from _finished(first, paragraph, max_bytes, report)
            paragraph, first, ours = bytearray(), None, offset < stop
            if not ours:
                return
        elif ours:
            first = offset if first is None else first
            paragraph = _longer(paragraph, line, max_bytes)
        elif offset >= stop:
            return
    if first is not None:
        yield from _finished(first, paragraph, max_bytes, report)


def _longer(paragraph: bytearray | None, line: bytes | None, max_bytes: int) -> bytearray | None:
    """The paragraph with one more line; None once it is too long."""
    if paragraph is None or line is None or len(paragraph) > max_bytes + 2:
        return None
    paragraph += line
    return paragraph


def _finished(first: int, content: bytes | bytearray | None, max_bytes: int, report: Report) -> Iterator[Found]:
    data = None if content is None else _without_newline(bytes(content))
    if data is None or len(data) > max_bytes:
        report.add("too_long")
    else:
        yield Found(first, data)


def _without_newline(line: bytes) -> bytes:
    return line.removesuffix(b"\n").removesuffix(b"\r")
