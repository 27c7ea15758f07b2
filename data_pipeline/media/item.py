"""What a corpus of media gives, what is stored of it, and why something is left out."""

import re
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from pydantic import Field

from data_pipeline.archives.decompression import allowance
from data_pipeline.config import Config

Reason = Literal[
    "absolute_path",
    "broken",
    "cut_off",
    "device",
    "empty",
    "expands_too_far",
    "link",
    "no_label",
    "other_kind",
    "outside_keys",
    "parent_path",
    "silent",
    "sparse",
    "too_large",
    "too_long",
    "too_many_notes",
    "too_many_pixels",
    "unknown_label",
    "wrong_channels",
    "wrong_depth",
    "wrong_size",
]
"""Why an item is left out (see docs/data.md)."""


class Unfit(Exception):
    """An item that cannot be used: it is counted, or ends the preparation, as the recipe says."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


def told(error: Exception) -> str:
    """What a library says, without the place in memory of what it read.

    >>> told(OSError("cannot identify image file <_io.BytesIO object at 0x7f5e1c0>"))
    'cannot identify image file'
    """
    return re.sub(r" ?<_io\.BytesIO object at 0x[0-9a-f]+>", "", str(error))


class Caps(Config):
    """What one item may cost at most; larger ones are left out before they are decoded."""

    item_bytes: int = Field(default=1 << 28, ge=1)
    """Of a file or an archive's member, as it is stored."""
    expansion: int = Field(default=200, ge=1)
    """A compressed file may become this many times larger, beyond its first MiB."""
    pixels: int = Field(default=1 << 26, ge=1)
    """Of an image, before it is resized."""
    seconds: float = Field(default=3600.0, gt=0)
    """Of audio."""
    samples: int = Field(default=1 << 28, ge=1)
    """Of audio, of all its channels: a header may name any rate."""
    notes: int = Field(default=100_000, ge=1)
    steps: int = Field(default=100_000, ge=1)
    """Of the time grid, in one piece of music."""

    def most_expanded(self, stored_bytes: int) -> int:
        """Bytes that may come out of so many compressed ones."""
        return allowance(stored_bytes, self.expansion)


@dataclass(frozen=True, slots=True)
class Entry:
    """A file, an archive's member, or a row of an array; or why there is none."""

    name: str
    """Its path below the corpus's directory, with the member's name or the row's number; never depends on pieces."""
    content: bytes | np.ndarray = b""
    fields: dict[str, str] = field(default_factory=dict)
    """What is known of it where it was found, such as its label."""
    problem: Unfit | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """An item as it goes into a tar."""

    payload: bytes
    length: int
    """Samples of audio, steps of music; 1 of an image."""
    facts: dict[str, int | str]
    """For its JSON member, such as the sizes of the original."""


class Converter(Protocol):
    """Between files of one kind of media and members of the tars; pickled to the workers."""

    @property
    def endings(self) -> tuple[str, ...]:
        """Of names (lower case) that it can convert."""

    @property
    def suffix(self) -> str:
        """Of the members that it makes, without the dot."""

    def parts(self, entry: Entry, caps: Caps) -> "list[Entry]":
        """The items in an entry, which often is one itself; Unfit for what cannot be divided."""

    def convert(self, entry: Entry, caps: Caps) -> Stored:
        """What to store of an item; Unfit where it cannot be."""
