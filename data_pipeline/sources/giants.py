"""Documents too long to be held at once: found in a file without reading all of it, cut in spans that any workers read.

They are cut before a white space that something else follows, where no tokenizer that is `divisible` can tell
(`data_pipeline.tokenizers.division`); where there is none for a MiB, before any character.
"""

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import BinaryIO

from data_pipeline.sources.decoding import InvalidUtf8, Nul, TextPolicy, text_of, without_mark, without_nul
from data_pipeline.sources.document import Document, Report, Span
from data_pipeline.sources.folder import Folder

GIANT = 1 << 25
"""Bytes of the longest document that is held as a whole."""
PART_BYTES = 1 << 22
"""Of a giant that are held at a time."""
STEP = 1 << 20
FIRST_STEP = 1 << 14
OVERLAP = 1 << 12
"""Bytes of the longest end of a document that is found for certain."""

END_OF_LINE = re.compile(rb"\r?\n")
END_OF_PARAGRAPH = re.compile(rb"\r?\n(?:[ \t\r\v\f]*\n)+")
BLANK_LINES = re.compile(rb"(?:[ \t\r\v\f]*\n)+")
LAST_END = re.compile(rb"\r?\n[ \t\r\v\f\n]*\Z")

CUT = re.compile(rb"[ \t\r\n](?=[!-~\xc3-\xe0\xe4-\xf4])")
"""A white space before what is none: not before the first byte of one of Unicode's (C2, E1, E2, E3)."""

Bytes = tuple[int, int]
"""[start, stop) in a file."""


@dataclass(frozen=True, slots=True)
class Giant:
    """Where a giant document is."""

    start: int
    stop: int
    others_stop: int
    """Ordinary documents before it start before this, and so do the ends of documents that begin one of them."""


def giants_in(
    folder: Folder, name: str, size: int, end: re.Pattern[bytes] | None, *, giant: int = GIANT
) -> list[Giant]:
    """The documents of more than `giant` bytes; without an `end`, the file is one.

    Each of them fills one of the windows of half that size that the file is cut in. Of the others little is read; and
    nothing of files that are far away, which must be documents as a whole to be found so.
    """
    if end is None or size <= giant or not folder.near:
        return [Giant(0, size, 0)] * (end is None and size > giant)
    with folder.open(name) as stream:
        return list(_giants(stream, size, end, giant))


def spans_with_giants(
    folder: Folder, name: str, size: int, piece_bytes: int, giants: Sequence[Giant], most: int
) -> Iterator[Span]:
    """The file in spans of about `piece_bytes`; a giant of more than `most` bytes, which is left out, in one."""
    with folder.open(name) as stream:
        position = 0
        for giant in [*giants, Giant(size, size, size)]:
            start, stop = giant.start, giant.stop
            for first in range(position, giant.others_stop, piece_bytes):
                last = min(first + piece_bytes, giant.others_stop)
                yield Span(name, first, last, last - first)
            cuts = [start, stop] if stop - start > most else [start, *_cuts(stream, start, stop, piece_bytes), stop]
            yield from (
                Span(name, one, other, other - one, (start, stop)) for one, other in pairwise(cuts) if one < other
            )
            position = stop


def parts_of(folder: Folder, span: Span, most: int, policy: TextPolicy, report: Report) -> Iterator[Document]:
    """The part of a giant that a span is, in parts that can be held; none (and counted) of one longer than `most`.

    It is never left out for what is wrong in a part of it, which other workers may have read: that is replaced.
    """
    assert span.document is not None
    if span.document[1] - span.document[0] > most:
        report.add("too_long", start=span.document[0])
        return
    invalid: InvalidUtf8 = "stop" if policy.invalid_utf8 == "stop" else "replace"
    nul: Nul = "remove" if policy.nul == "skip" else policy.nul
    with folder.open(span.name) as stream:
        for start, data in _parts(stream, span.start, span.stop):
            identity, stop = f"{span.name}:{start}", start + len(data)
            report.start = start
            text = text_of(identity, without_mark(data, report) if start == 0 else data, invalid, report) or ""
            if "\0" in text:
                text = without_nul(identity, text, nul, report) or ""
            yield Document(
                id=identity,
                text=text,
                num_bytes=len(text.encode()),
                source=span.name,
                start=start,
                stop=stop,
                continues=start > span.document[0],
                more=stop < span.document[1],
            )


def _giants(stream: BinaryIO, size: int, end: re.Pattern[bytes], giant: int) -> Iterator[Giant]:
    window, at = giant // 2, 0
    known: Bytes | None = None
    while at + window <= size:
        if _first(stream, at, at + window, end):
            at += window
            continue
        before = _last(stream, known[1] if known else 0, at, end) or known
        after = _first(stream, at + window, size, end) or (size, size)
        start = before[1] if before else 0
        if after[0] - start > giant:
            begin = start if before or end is not END_OF_PARAGRAPH else _after_blank_lines(stream)
            stop = after[0] if after[0] < size or end is not END_OF_PARAGRAPH else _before_last_end(stream, size)
            yield Giant(begin, stop, before[0] + 1 if before else 0)
        known = after
        at = -(-after[1] // window) * window


def _after_blank_lines(stream: BinaryIO) -> int:
    """Where the first paragraph begins: at the beginning of a file no line end is before blank lines."""
    match = BLANK_LINES.match(_read(stream, 0, OVERLAP))
    return match.end() if match else 0


def _before_last_end(stream: BinaryIO, size: int) -> int:
    """Where the last paragraph ends: at the end of a file no blank line is after its line end."""
    begin = size - OVERLAP
    match = LAST_END.search(_read(stream, begin, OVERLAP))
    return begin + match.start() if match else size


def _first(stream: BinaryIO, start: int, stop: int, end: re.Pattern[bytes]) -> Bytes | None:
    """The first end of a document that begins in [start, stop)."""
    step = FIRST_STEP
    while start < stop:
        data = _read(stream, start, min(step, stop - start) + OVERLAP)
        match = end.search(data)
        if match and match.start() < min(step, stop - start):
            return start + match.start(), start + match.end()
        start, step = start + step, STEP
    return None


def _last(stream: BinaryIO, start: int, stop: int, end: re.Pattern[bytes]) -> Bytes | None:
    """The last end of a document in [start, stop)."""
    while start < stop:
        begin = max(start, stop - STEP)
        data = _read(stream, begin, stop - begin + OVERLAP)
        found = [match for match in end.finditer(data) if match.start() < stop - begin]
        if found:
            return begin + found[-1].start(), begin + found[-1].end()
        stop = begin
    return None


def _cuts(stream: BinaryIO, start: int, stop: int, piece_bytes: int) -> Iterator[int]:
    """Where the giant is cut, about every `piece_bytes`."""
    while stop - start > piece_bytes:
        start = _cut(stream, start, start + piece_bytes)
        yield start


def _cut(stream: BinaryIO, start: int, stop: int) -> int:
    """The last place in (start, stop] where it may be cut."""
    for length in (FIRST_STEP, STEP):
        begin = max(start + 1, stop - length)
        data = _read(stream, begin, stop + 1 - begin)
        last = max((match.start() for match in CUT.finditer(data)), default=None)
        if last is not None:
            return begin + last
    ending = _read(stream, max(start + 1, stop - 3), 4)
    return max(start + 1, stop - 3) + _character(ending)


def _parts(stream: BinaryIO, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
    stream.seek(start)
    held, position = b"", start
    while position < stop:
        block = stream.read(min(PART_BYTES, stop - position))
        if not block:
            raise EOFError(f"the file ends at byte {position}, not {stop}: it has changed")
        held, position = held + block, position + len(block)
        cut = len(held) if position == stop else _last_cut(held)
        yield start, held[:cut]
        held, start = held[cut:], start + cut


def _last_cut(data: bytes) -> int:
    for begin in (len(data) - FIRST_STEP, 1):
        last = max((match.start() for match in CUT.finditer(data, max(begin, 1))), default=None)
        if last is not None:
            return last
    return len(data) - len(data[-4:]) + _character(data[-4:])


def _character(data: bytes) -> int:
    """Where the last character of UTF-8 begins in the last few bytes before a cut."""
    return max((place for place, byte in enumerate(data) if byte & 0xC0 != 0x80), default=len(data) - 1)


def _read(stream: BinaryIO, start: int, length: int) -> bytes:
    stream.seek(start, io.SEEK_SET)
    return stream.read(length)
