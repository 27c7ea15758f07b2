"""From what a reader found to a document: UTF-8, lone surrogates, NUL and byte order marks, by policy and counted."""

import codecs
from dataclasses import dataclass
from typing import Literal, NamedTuple

from data_pipeline.config import BadInput
from data_pipeline.sources.document import Document, Report

InvalidUtf8 = Literal["skip", "replace", "stop"]
"""What to do with a document that is not UTF-8, or holds half of a surrogate pair (as JSON can): leave it out, put
U+FFFD for what is wrong, or end with an error."""

CHARSETS = ("utf-8", "utf-16", "ascii", "iso8859", "latin", "cp", "koi8", "mac", "big5", "gb", "euc", "shift_jis", "hz",
            "iso2022", "johab", "tis", "ptcp", "kz1048")  # fmt: skip
"""Beginnings of the names of Python's codecs that are character sets; others, such as idna, are slow or do more."""

Nul = Literal["keep", "remove", "skip", "stop"]
"""What to do with a document that holds NUL: keep it as it is, keep it without them, leave it out, or end with an
error."""


class Found(NamedTuple):
    """A document as a reader found it: not yet decoded, perhaps empty."""

    id: str
    content: bytes | str
    """In UTF-8, or a string in which surrogates may stand alone."""
    source: str
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class TextPolicy:
    """What to do with text that is not as it should be."""

    invalid_utf8: InvalidUtf8 = "skip"
    nul: Nul = "keep"


def decoded(found: Found, policy: TextPolicy, report: Report) -> Document | None:
    """The document, or None if it is left out, and why in the report; BadInput if the policy is "stop"."""
    report.start = found.start
    if isinstance(found.content, bytes):
        text = text_of(found.id, found.content, policy.invalid_utf8, report)
    else:
        text = _whole_characters(found.id, found.content, policy.invalid_utf8, report)
    if text is not None and "\0" in text:
        text = without_nul(found.id, text, policy.nul, report)
    if text is None:
        return None
    if not text or text.isspace():
        report.add("empty", found.id)
        return None
    return Document(found.id, text, _num_bytes(text), found.source, found.start, found.stop)


def without_mark(beginning: bytes, report: Report) -> bytes:
    """The beginning of a file without UTF-8's byte order mark."""
    if not beginning.startswith(codecs.BOM_UTF8):
        return beginning
    report.add("removed_byte_order_mark")
    return beginning[len(codecs.BOM_UTF8) :]


def text_of(
    identity: str, data: bytes, policy: InvalidUtf8, report: Report, *, charset: str | None = None
) -> str | None:
    """From UTF-8, or the charset if it is a known one; None if it is left out, BadInput if the policy is "stop"."""
    encoding = _known(charset) if charset else "utf-8"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        if policy == "stop":
            raise BadInput(
                f"{identity}: not {encoding.upper()} at byte {error.start} of the document; convert the file, or set "
                "corpus.invalid_utf8 to skip or replace"
            ) from error
    if policy == "skip":
        report.add("invalid_utf8", identity)
        return None
    report.add("replaced_utf8", identity)
    return data.decode(encoding, errors="replace")


def _known(charset: str) -> str:
    """Python's name of a web page's charset; UTF-8 for what is none."""
    try:
        codec = codecs.lookup(charset.strip().strip("\"'"))
    except (LookupError, ValueError):
        return "utf-8"
    return codec.name if codec.name.startswith(CHARSETS) else "utf-8"


def _whole_characters(identity: str, text: str, policy: InvalidUtf8, report: Report) -> str | None:
    """A string that can be written in UTF-8."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        if policy == "stop":
            raise BadInput(
                f"{identity}: half of a surrogate pair at character {error.start} of the text; mend it, or set "
                "corpus.invalid_utf8 to skip or replace"
            ) from error
    else:
        return text
    if policy == "skip":
        report.add("lone_surrogate", identity)
        return None
    report.add("replaced_surrogate", identity)
    return text.encode("utf-16-le", errors="surrogatepass").decode("utf-16-le", errors="replace")


def without_nul(identity: str, text: str, policy: Nul, report: Report) -> str | None:
    """Text that holds NUL, by policy; None if it is left out, BadInput if the policy is "stop"."""
    if policy == "stop":
        raise BadInput(
            f"{identity}: holds NUL at character {text.index(chr(0))} of the text (UTF-16, or no text at all?); "
            "convert it, or set corpus.nul to keep, remove or skip"
        )
    if policy == "keep":
        report.add("kept_nul", identity)
        return text
    if policy == "skip":
        report.add("nul", identity)
        return None
    report.add("removed_nul", identity)
    return text.replace("\0", "")


def _num_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
