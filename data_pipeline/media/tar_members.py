"""Members of tars, plain or .gz or .zst, of which nothing is extracted: their bytes, one after the other, within caps.

A member with an absolute path or `..` in it, a link, a device and a sparse file are refused. An archive that is cut
off, damaged or expands too far ends there, and that is told.
"""

import gzip
import io
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Self, cast

import zstandard

from data_pipeline.config import BadInput
from data_pipeline.media.item import Caps, Entry, Reason, Unfit
from data_pipeline.sources.zstandard_frames import check_whole

ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.zst")
LONGEST_NAME = 1 << 16
"""Bytes of a header that extends another one; tarfile would hold any size in memory."""
EXTENSIONS = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME)
UNREADABLE = (OSError, EOFError, zlib.error, zstandard.ZstdError, tarfile.TarError, UnicodeError, ValueError)


class _Header(tarfile.TarInfo):
    """Headers that are wrong are told, where tarfile takes them for the end of the archive."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        try:
            header = super().frombuf(buf, encoding, errors)
        except (tarfile.EmptyHeaderError, tarfile.TruncatedHeaderError) as error:  # type: ignore[attr-defined]
            raise EOFError("it ends where a header should follow, or the two empty blocks of its end") from error
        except tarfile.InvalidHeaderError as error:  # type: ignore[attr-defined]
            raise tarfile.ReadError(f"a damaged header ({error})") from error
        if header.size < 0 or (header.type in (*EXTENSIONS, tarfile.GNUTYPE_LONGLINK) and header.size > LONGEST_NAME):
            raise tarfile.ReadError(f"a header of {header.size} bytes")
        return header


class _Limited(io.RawIOBase):
    """Ends with an error when more than `limit` bytes come out of it."""

    def __init__(self, stream: BinaryIO, limit: int) -> None:
        self._stream, self._left = stream, limit

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(cast(bytearray, buffer))
        data = self._stream.read(min(len(view), self._left + 1))
        if len(data) > self._left:
            raise _ExpandedError("it expands beyond corpus.caps.expansion")
        self._left -= len(data)
        view[: len(data)] = data
        return len(data)


class _ExpandedError(OSError):
    pass


@contextmanager
def decompressed(path: Path, caps: Caps) -> Iterator[BinaryIO]:
    """A file's bytes, out of .gz or .zst too; reading raises one of `UNREADABLE` where they end too early or late."""
    with path.open("rb") as file:
        if path.suffix not in (".gz", ".tgz", ".zst"):
            yield file
            return
        if path.suffix == ".zst":
            check_whole(file)
            plain: object = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
        else:
            plain = gzip.GzipFile(fileobj=file)
        limit = caps.most_expanded(path.stat().st_size)
        yield cast(BinaryIO, io.BufferedReader(_Limited(cast(BinaryIO, plain), limit), 1 << 18))


def unreadable(error: Exception) -> Unfit:
    """What to count for one of `UNREADABLE`; BadInput where it is the disk that cannot be read."""
    if isinstance(error, OSError) and error.errno is not None:
        raise BadInput(f"{error.filename}: cannot be read ({error.strerror}); repair it, or leave it out") from error
    reason: Reason = "cut_off" if isinstance(error, EOFError) or "end of data" in str(error) else "broken"
    return Unfit("expands_too_far" if isinstance(error, _ExpandedError) else reason, str(error))


def starts(path: Path, piece_bytes: int) -> list[int]:
    """Where pieces of about `piece_bytes` begin in a plain tar."""
    found = [0]
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:", tarinfo=_Header) as archive:
            for member in archive:
                archive.members = []  # type: ignore[attr-defined]  # tarfile keeps all of them
                if member.offset - found[-1] >= piece_bytes:
                    found.append(member.offset)
    except UNREADABLE:
        pass  # told by the one who reads there
    return found


def members(path: Path, name: str, start: int, stop: int, caps: Caps) -> Iterator[Entry]:
    """Those of a plain tar whose headers begin in [start, stop); `name` goes before theirs."""
    try:
        with path.open("rb") as stream:
            stream.seek(start)
            for member, archive in _headers(stream):
                if start + member.offset >= stop:
                    return
                if not member.isdir():
                    yield _entry(archive, member, name, caps)
    except UNREADABLE as error:
        yield Entry(name, problem=unreadable(error))


def packed_members(path: Path, name: str, share: int, shares: int, caps: Caps) -> Iterator[Entry]:
    """Every `shares`-th member of a compressed tar, from the number `share` on. All of it is decompressed, since its
    length is not known before; what is wrong with all of it is told in the share 0."""
    try:
        with decompressed(path, caps) as stream:
            for number, (member, archive) in enumerate(_headers(stream)):
                if number % shares == share and not member.isdir():
                    yield _entry(archive, member, name, caps)
    except UNREADABLE as error:
        problem = unreadable(error)
        if share == 0:
            yield Entry(name, problem=problem)


def _headers(stream: BinaryIO) -> Iterator[tuple[tarfile.TarInfo, tarfile.TarFile]]:
    with tarfile.open(fileobj=stream, mode="r|", tarinfo=_Header) as archive:
        for member in archive:
            archive.members = []  # type: ignore[attr-defined]  # tarfile keeps all of them
            yield member, archive


def _entry(archive: tarfile.TarFile, member: tarfile.TarInfo, name: str, caps: Caps) -> Entry:
    whole = f"{name}/{member.name}"
    problem = _refused(member, caps)
    if problem is not None:
        return Entry(whole, problem=problem)
    content = archive.extractfile(member)
    assert content is not None, "it is a regular file"
    parts = [part for part in PurePosixPath(member.name).parts if part != "."]
    return Entry("/".join((name, *parts)), content.read())


def _refused(member: tarfile.TarInfo, caps: Caps) -> Unfit | None:
    if member.name.startswith("/"):
        return Unfit("absolute_path", "the member has an absolute path")
    if ".." in member.name.split("/"):
        return Unfit("parent_path", "the member has .. in its path")
    if member.issym() or member.islnk():
        return Unfit("link", "the member is a link")
    if member.issparse():
        return Unfit("sparse", "the member is a sparse file")
    if not member.isreg():
        return Unfit("device", "the member is a device, a pipe or of a type of its own")
    if member.size > caps.item_bytes:
        return Unfit(
            "too_large", f"the member has {member.size:,} bytes, corpus.caps.item_bytes is {caps.item_bytes:,}"
        )
    return None
