"""Personal data and secrets, replaced by fixed marks: what can be told by its shape, and its checksum where it has one.

Names, addresses and what is secret only by its place (`password: ...`) are not found. Shapes of secrets are those of
`data_pipeline.redaction`.
"""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv6Address
from typing import ClassVar, Literal

from data_pipeline.redaction import PRIVATE_KEY, TOKEN_SHAPES, USER_AND_PASSWORD
from data_pipeline.sources.document import Document
from data_pipeline.steps.checksums import IBAN_LENGTHS, card_is_right, iban_is_right
from data_pipeline.steps.step import DocumentStep, Dropped, with_text

Kind = Literal["secret", "email", "iban", "card", "phone", "ip_address"]

AFTER = r"(?!\w|-\w|\.\d)"
"""A number ends before this: more of it would make it something else."""
_EMAIL = re.compile(r"(?<![\w.%+-])[A-Za-z0-9_.%+-]{1,64}+@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![\w-])")
_GROUPED_CARD = r"\d{3}([ -])(?:\d{4}\1\d{4}\1\d{4}(?:\1\d{3})?|\d{6}\1\d{4,5})"
_CARD = re.compile(rf"(?<![\w.+-])[2-6](?:{_GROUPED_CARD}|\d{{12,18}}){AFTER}")
"""Digits together, or in the groups that are printed: any other groups are those of tables."""
_PHONE = re.compile(rf"(?<![\w+])\+[1-9](?:[ .()/-]{{0,2}}\d){{7,14}}{AFTER}")
"""ITU-T E.164: a country code, and at most 15 digits; fewer than 8 are taken for something else."""
_BYTE = r"(?:25[0-5]|2[0-4]\d|1?\d?\d)"
_IPV4 = re.compile(rf"(?<![\w.])(?:{_BYTE}\.){{3}}{_BYTE}{AFTER}")
_IPV6 = re.compile(r"(?<![\w:.])(?=[A-Fa-f:]*\d)[0-9A-Fa-f]{1,4}(?:::?[0-9A-Fa-f]{1,4}){2,7}(?![\w:])")
"""With three groups or more and a digit: `a::b` is C++."""


MOST_ROUNDS = 32
"""A mark can uncover what stood too close to what it replaces; a document where that goes on for longer is dropped."""


class RedactConfig(DocumentStep):
    """Each mark is the kind's name in angle brackets; marks are counted. Doing it twice is doing it once."""

    reasons: ClassVar[tuple[str, ...]] = ("unsettled",)
    alters: ClassVar[bool] = True

    kind: Literal["redact"]
    kinds: tuple[Kind, ...] = ("secret", "email", "iban", "card", "phone", "ip_address")

    def apply(self, document: Document, altered: Counter[str]) -> Document | Dropped:
        text = document.text
        for _ in range(MOST_ROUNDS):
            before = text
            for finder in FINDERS:
                if finder.kind in self.kinds and finder.may_be_in(text):
                    text, count = finder.marked(text)
                    altered[finder.kind] += count
            if text == before:
                return document if text == document.text else with_text(document, text)
        return Dropped("unsettled")


@dataclass(frozen=True, slots=True)
class Finder:
    """One shape of what is replaced."""

    kind: Kind
    sign: str | re.Pattern[str]
    """Quickly found; without it in a text there is none."""
    pattern: re.Pattern[str]
    length: Callable[[str], int] = len
    """How much of what the pattern matches is one; 0: it is none."""

    def may_be_in(self, text: str) -> bool:
        """Whether it is worth looking for one."""
        return self.sign in text if isinstance(self.sign, str) else self.sign.search(text) is not None

    def marked(self, text: str) -> tuple[str, int]:
        """The text with marks, and how many are new."""
        parts, copied, begin = [], 0, 0
        while found := self.pattern.search(text, begin):
            length = self.length(found[0])
            begin = found.start() + (length or 1)
            if length:
                parts.append(text[copied : found.start()])
                copied = begin
        return f"<{self.kind}>".join([*parts, text[copied:]]), len(parts)


def _iban_pattern() -> re.Pattern[str]:
    """Of every country's length, with or without spaces."""
    by_length: dict[int, list[str]] = {}
    for country, length in IBAN_LENGTHS.items():
        by_length.setdefault(length, []).append(country)
    shapes = (rf"(?:{'|'.join(names)})\d\d(?: ?[A-Z0-9]){{{length - 4}}}" for length, names in by_length.items())
    return re.compile(rf"(?<![A-Za-z0-9])(?:{'|'.join(shapes)})(?![A-Za-z0-9])")


def _card_length(found: str) -> int:
    """Three digits behind four groups of four are of the card, or a code of their own."""
    lengths = (length for length in (len(found), 19) if card_is_right(re.sub(r"\D", "", found[:length])))
    return next(lengths, 0)


def _iban_length(found: str) -> int:
    return len(found) if iban_is_right(found.replace(" ", "")) else 0


def _ipv6_length(found: str) -> int:
    try:
        IPv6Address(found)
    except AddressValueError:
        return 0
    return len(found)


FINDERS = (
    Finder("secret", "PRIVATE KEY-----", PRIVATE_KEY),
    Finder("secret", "://", USER_AND_PASSWORD),
    Finder("secret", "", TOKEN_SHAPES),
    Finder("email", "@", _EMAIL),
    Finder("iban", re.compile(r"[A-Z]{2}\d\d"), _iban_pattern(), _iban_length),
    Finder("card", re.compile(r"\d[ -]?\d[ -]?\d[ -]?\d[ -]?\d"), _CARD, _card_length),
    Finder("phone", "+", _PHONE),
    Finder("ip_address", re.compile(r"\d\.\d"), _IPV4),
    Finder("ip_address", ":", _IPV6, _ipv6_length),
)
