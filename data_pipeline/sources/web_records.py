"""The records of a web archive that hold text, through warcio, in bounded memory and with what it passes over checked.

That is a record that is cut off, or longer than it says. Bodies are unpacked here, so that none can grow without bound.
"""

import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from email.message import Message
from typing import Any

from data_pipeline.archives.decompression import DAMAGE, Damaged, ExpandsTooFar, InSteps, allowance
from data_pipeline.config import BadInput
from data_pipeline.sources.document import Reason, Report

MAGIC = b"WARC/"
BLOCK = 1 << 20
WINDOWS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
"""What zlib calls the Content-Encodings of HTTP that the standard library knows."""
TEXT_TYPES = ("text/plain", "text/html", "application/xhtml+xml")


@dataclass(frozen=True, slots=True)
class Page:
    """A text in an archive, not yet decoded."""

    id: str
    url: str
    data: bytes
    is_html: bool
    charset: str | None
    start: int
    stop: int
    """The record's bytes in the uncompressed archive."""


class LeftOut(Exception):
    """A record is no document."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason: Reason = reason


def pages_of(stream: io.BufferedReader, max_bytes: int, report: Report) -> Iterator[Page]:
    """In the archive's order; other records are counted. Damaged where the archive is."""
    archives, load_failed = _warcio()
    if not stream.peek(1):
        report.add("empty_file")
        return
    if stream.peek(len(MAGIC))[: len(MAGIC)] != MAGIC:
        raise Damaged("does not begin as WARC does (what is compressed must be called .gz)")
    archive = archives(InSteps(stream), no_record_parse=True, block_size=BLOCK)
    try:
        for record in archive:
            page = _page_or_reason(record, max_bytes)
            damage = _damage_behind(archive, record)
            start = archive.offset if damage else archive.get_record_offset()
            if record.raw_stream.limit > 0 or archive.err_count:
                raise Damaged(f"the record at byte {start} is not as long as it says")
            if isinstance(page, Page):
                stop = stream.tell() if damage else start + archive.get_record_length()
                yield replace(page, start=start, stop=stop)
            else:
                report.add(page, start=start)
            if damage:
                raise damage
    except load_failed as error:
        raise Damaged(f"no WARC record: {str(error)[:200]}") from error


def _warcio() -> tuple[Any, type[Exception]]:
    try:
        from warcio.archiveiterator import ArchiveIterator  # needed by few
        from warcio.exceptions import ArchiveLoadFailed
    except ImportError as error:
        raise BadInput(
            "corpus.kind warc: needs the package warcio, which is not installed; install it with `pip install "
            "'segue[warc]'`"
        ) from error
    return ArchiveIterator, ArchiveLoadFailed


def _damage_behind(archive: Any, record: Any) -> Exception | None:
    """Reads to the end of the record; what is wrong right behind it is no reason to lose it."""
    try:
        archive.read_to_end()
    except (ExpandsTooFar, *DAMAGE) as error:
        if record.raw_stream.limit > 0:
            raise
        return error
    return None


def _page_or_reason(record: Any, max_bytes: int) -> Page | Reason:
    length = record.rec_headers.get_header("Content-Length")
    if record.format != "warc" or length is None or not length.isdecimal():
        raise Damaged(f"a record without a length ({length!r})")
    try:
        return _page(record, max_bytes)
    except LeftOut as left_out:
        return left_out.reason


def _page(record: Any, max_bytes: int) -> Page:
    url = record.rec_headers.get_header("WARC-Target-URI") or ""
    is_answer = record.rec_type == "response" and url.startswith(("http:", "https:"))
    if not is_answer and record.rec_type not in ("conversion", "resource"):
        raise LeftOut("other_record")
    if record.length > max_bytes:
        raise LeftOut("too_long")
    content_type, stream, encoding = _answer(record) if is_answer else (record.content_type, record.raw_stream, "")
    kind, charset = _type_and_charset(content_type or "text/plain")
    if kind not in TEXT_TYPES:
        raise LeftOut("other_record")
    identity = (record.rec_headers.get_header("WARC-Record-ID") or "").strip("<>")
    if not identity:
        raise LeftOut("no_id")
    data = _unpacked(stream.read(), encoding, min(allowance(record.length), max_bytes))
    return Page(identity, url, data, kind != "text/plain", charset, 0, 0)


def _answer(record: Any) -> tuple[str | None, Any, str]:
    """(Content-Type, body, Content-Encoding) of an HTTP response."""
    from warcio.bufferedreaders import ChunkedDataReader
    from warcio.statusandheaders import StatusAndHeadersParser

    try:
        headers = StatusAndHeadersParser(["HTTP/"], verify=False).parse(record.raw_stream)
    except EOFError:
        raise LeftOut("unreadable_record") from None
    if headers.get_statuscode() != "200":
        raise LeftOut("other_record")
    is_chunked = (headers.get_header("Transfer-Encoding") or "").lower() == "chunked"
    body = ChunkedDataReader(record.raw_stream) if is_chunked else record.raw_stream
    encoding = (headers.get_header("Content-Encoding") or "").lower().strip()
    return headers.get_header("Content-Type"), body, encoding


def _type_and_charset(content_type: str) -> tuple[str, str | None]:
    """
    >>> _type_and_charset('Text/HTML; charset="ISO-8859-1"')
    ('text/html', 'iso-8859-1')
    """
    message = Message()
    message["Content-Type"] = " ".join(content_type.split())
    return message.get_content_type(), message.get_content_charset()


def _unpacked(data: bytes, encoding: str, limit: int) -> bytes:
    """A body without its Content-Encoding."""
    if encoding in ("", "identity"):
        return data
    if encoding not in WINDOWS:
        raise LeftOut("unreadable_record")
    unpacker = zlib.decompressobj(WINDOWS[encoding])
    try:
        unpacked = unpacker.decompress(data, limit + 1)
    except zlib.error:
        raise LeftOut("unreadable_record") from None
    if len(unpacked) > limit:
        raise LeftOut("expands_too_far")
    if not unpacker.eof:
        raise LeftOut("unreadable_record")
    return unpacked
