"""Tars, plain or .gz or .zst, as entries of a corpus: what is refused, and where an archive ends too early or expands
too far, is an entry with a problem."""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import zstandard

from data_pipeline.archives.decompression import CutOff, Damaged, ExpandsTooFar, decompressed
from data_pipeline.archives.tar_members import Member, begins_of, members_in
from data_pipeline.config import BadInput
from data_pipeline.media.item import Caps, Entry, Reason, Unfit

ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.zst")
UNREADABLE = (Damaged, ExpandsTooFar, OSError, EOFError, zlib.error, zstandard.ZstdError, ValueError)


@contextmanager
def opened(path: Path, caps: Caps) -> Iterator[BinaryIO]:
    """A file's bytes, uncompressed; reading raises one of `UNREADABLE` where they end too early or late."""
    with path.open("rb") as file, decompressed(file, path.name, caps.expansion) as stream:
        yield stream


def unreadable(error: Exception) -> Unfit:
    """What to count for one of `UNREADABLE`; BadInput where it is the disk that cannot be read."""
    if isinstance(error, OSError) and error.errno is not None:
        raise BadInput(f"{error.filename}: cannot be read ({error.strerror}); repair it, or leave it out") from error
    if isinstance(error, ExpandsTooFar):
        return Unfit("expands_too_far", f"{error}, which is beyond corpus.caps.expansion")
    reason: Reason = "cut_off" if isinstance(error, CutOff | EOFError) else "broken"
    return Unfit(reason, str(error))


def starts(path: Path, piece_bytes: int) -> list[int]:
    """Where pieces of about `piece_bytes` begin in a plain tar."""
    found = [0]
    try:
        for begin in begins_of(path):
            if begin - found[-1] >= piece_bytes:
                found.append(begin)
    except UNREADABLE:
        pass  # told by the one who reads there
    return found


def members(path: Path, name: str, start: int, stop: int, caps: Caps) -> Iterator[Entry]:
    """Those of a plain tar whose headers begin in [start, stop); `name` goes before theirs."""
    try:
        with path.open("rb") as stream:
            stream.seek(start)
            for member in members_in(stream):
                if start + member.begin >= stop:
                    return
                if not member.is_folder:
                    yield _entry(member, name, caps)
    except UNREADABLE as error:
        yield Entry(name, problem=unreadable(error))


def packed_members(path: Path, name: str, share: int, shares: int, caps: Caps) -> Iterator[Entry]:
    """Every `shares`-th member of a compressed tar, from the number `share` on. All of it is decompressed, since its
    length is not known before; what is wrong with all of it is told in the share 0."""
    try:
        with opened(path, caps) as stream:
            for number, member in enumerate(members_in(stream)):
                if number % shares == share and not member.is_folder:
                    yield _entry(member, name, caps)
    except UNREADABLE as error:
        problem = unreadable(error)
        if share == 0:
            yield Entry(name, problem=problem)


def _entry(member: Member, name: str, caps: Caps) -> Entry:
    problem = _problem(member, caps)
    if problem is not None:
        return Entry(f"{name}/{member.name}", problem=problem)
    parts = [part for part in PurePosixPath(member.name).parts if part != "."]
    return Entry("/".join((name, *parts)), member.read())


def _problem(member: Member, caps: Caps) -> Unfit | None:
    if member.refusal is not None:
        return Unfit(member.refusal.reason, member.refusal.detail)
    if member.size > caps.item_bytes:
        return Unfit("too_large", f"it has {member.size:,} bytes, corpus.caps.item_bytes is {caps.item_bytes:,}")
    return None
