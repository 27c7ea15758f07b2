"""Documents as bytes out of ranges of a file, in bounded memory whatever the file holds.

A document belongs to the range of bytes in which it starts; for `blank_line`, in which the blank line before it starts
(the first document: the range that starts at 0). So ranges that cover a file give each of its documents exactly once.
A byte order mark at the beginning of the file is no part of the first document.
"""

import sys
from codecs import BOM_UTF8
from collections.abc import Iterator
from typing import BinaryIO, Literal, NamedTuple

from data_pipeline.archives.decompression import InSteps
from data_pipeline.sources.decoding import without_mark
from data_pipeline.sources.document import Report

DocumentUnit = Literal["file", "line", "blank_line", "separator"]


class Range(NamedTuple):
    """Bytes [start, stop) of a file's uncompressed content."""

    start: int
    stop: int


class Part(NamedTuple):
    """A document's bytes, without what ends it."""

    offset: int
    data: bytes


Pieces = Iterator[tuple[int, bytes | None]]
"""Where each line (or the like) starts, and its bytes; None for one that is too long."""

STEP = 1 << 20
"""Bytes read at a time where no document has to be held."""


def documents_in(
    stream: BinaryIO,
    place: Range,
    *,
    unit: DocumentUnit,
    max_bytes: int,
    report: Report,
    separator: bytes = b"",
) -> Iterator[Part]:
    """The documents that start in the range; those longer than `max_bytes` are counted and left out.

    A whole file is read whatever the range. A range that does not start at 0 needs a stream that can seek, and a
    separator that cannot overlap with itself.
    """
    if unit == "file":
        yield from _whole(stream, max_bytes, report)
    elif unit == "blank_line":
        paragraphs = _paragraphs(_lines(stream, place.start, sys.maxsize, max_bytes), place, max_bytes)
        yield from _each(paragraphs, Range(place.start, sys.maxsize), max_bytes, report)
    elif unit == "line":
        lines = _lines(stream, place.start, place.stop, max_bytes)
        yield from _each(((at, line and _without_newline(line)) for at, line in lines), place, max_bytes, report)
    else:
        parts = _separated(stream, place, separator, max_bytes)
        yield from _each(parts, place, max_bytes, report)


def overlaps_itself(separator: bytes) -> bool:
    """Whether it can begin before it has ended, so that where it is depends on where one starts to look.

    >>> overlaps_itself(b"<|endoftext|>"), overlaps_itself(b"---")
    (False, True)
    """
    return any(separator.endswith(separator[:length]) for length in range(1, len(separator)))


def _whole(stream: BinaryIO, max_bytes: int, report: Report) -> Iterator[Part]:
    part = _finished(0, stream.read(max_bytes + 1 + len(BOM_UTF8)), max_bytes, report)
    if part is not None:
        yield part


def _lines(stream: BinaryIO, start: int, stop: int, max_bytes: int) -> Pieces:
    """The lines that start in [start, stop), each with its newline; nothing is read of one that starts after."""
    position = _line_start(stream, start)
    longest = max_bytes + len(b"\r\n") + len(BOM_UTF8)
    while position < stop and (line := stream.readline(longest)):
        offset, position = position, position + len(line)
        if len(line) == longest and not line.endswith(b"\n"):
            position += _rest_of_line(stream)
            yield offset, None
        else:
            yield offset, line


def _line_start(stream: BinaryIO, start: int) -> int:
    """Puts the stream at the first line that starts at `start` or after, and says where that is."""
    if start == 0:
        return 0
    stream.seek(start - 1)
    return start - 1 + _rest_of_line(stream)


def _rest_of_line(stream: BinaryIO) -> int:
    """Reads to the end of the line, and says how far that was."""
    length = 0
    while part := stream.readline(STEP):
        length += len(part)
        if part.endswith(b"\n"):
            break
    return length


def _separated(stream: BinaryIO, place: Range, separator: bytes, max_bytes: int) -> Pieces:
    """What lies between separators, from the first that starts in the range."""
    position = max(0, place.start - len(separator))
    if position:
        stream.seek(position)
    found = _between(stream, position, place.stop, separator, max_bytes)
    if place.start:
        next(found, None)  # the rest of one that starts before
    return found


def _between(stream: BinaryIO, position: int, stop: int, separator: bytes, max_bytes: int) -> Pieces:
    held, held_from, first, too_long = bytearray(), position, position, False
    steps = InSteps(stream)
    while chunk := steps.read(STEP):
        search, begin = max(0, len(held) - len(separator) + 1), 0
        held += chunk
        while (end := held.find(separator, search)) >= 0:
            yield first, None if too_long else bytes(held[begin:end])
            begin = search = end + len(separator)
            first, too_long = held_from + begin, False
        if first >= stop:
            return
        unneeded = begin
        if len(held) - begin > max_bytes + len(BOM_UTF8) + len(separator):
            too_long, unneeded = True, len(held) - len(separator) + 1
        del held[:unneeded]
        held_from += unneeded
    if held or too_long:
        yield first, None if too_long else bytes(held)


def _each(pieces: Pieces, place: Range, max_bytes: int, report: Report) -> Iterator[Part]:
    for offset, data in pieces:
        if offset >= place.stop:
            return
        part = _finished(offset, data, max_bytes, report)
        if part is not None:
            yield part


def _paragraphs(lines: Pieces, place: Range, max_bytes: int) -> Pieces:
    """Runs of lines that are not blank, of those that belong to the range."""
    ours = place.start == 0
    paragraph: bytearray | None = bytearray()
    first: int | None = None
    for offset, line in lines:
        if line is not None and not line.strip():
            if first is not None:
                yield first, _text_of(paragraph)
            paragraph, first, ours = bytearray(), None, offset < place.stop
            if not ours:
                return
        elif ours:
            first = offset if first is None else first
            paragraph = _longer(paragraph, line, max_bytes)
        elif offset >= place.stop:
            return
    if first is not None:
        yield first, _text_of(paragraph)


def _longer(paragraph: bytearray | None, line: bytes | None, max_bytes: int) -> bytearray | None:
    """The paragraph with one more line; None once it is too long."""
    if paragraph is None or line is None or len(paragraph) > max_bytes + 2 + len(BOM_UTF8):
        return None
    paragraph += line
    return paragraph


def _text_of(paragraph: bytearray | None) -> bytes | None:
    return None if paragraph is None else _without_newline(bytes(paragraph))


def _finished(first: int, data: bytes | None, max_bytes: int, report: Report) -> Part | None:
    stop = first + len(data or b"")
    if data is not None and first == 0:
        data = without_mark(data, report)
    if data is None or len(data) > max_bytes:
        report.add("too_long", start=first)
        return None
    return Part(stop - len(data), data)


def _without_newline(line: bytes) -> bytes:
    return line[:-1].removesuffix(b"\r") if line.endswith(b"\n") else line
