"""The members of a tar file, in order and in bounded memory; what Python's tarfile passes over in silence is an error.

That is an archive that is cut off between two members, a damaged header, and data after the end. A member whose name
leaves the folder, a link, a device and a sparse file come with the reason why no one should read them, and nothing is
ever written or unpickled.
"""

import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import BinaryIO, Literal, Self, cast

from data_pipeline.archives.decompression import CutOff, Damaged, InSteps

MOST_HEADER_BYTES = 1 << 20
"""Of extended headers and long names, which tarfile holds in memory."""
BUFFER = 1 << 18
EXTENSIONS_OF_HEADERS = (
    tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK,
)  # fmt: skip

Refused = Literal["absolute_path", "parent_path", "link", "device", "sparse"]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a member is not to be read."""

    reason: Refused
    detail: str


@dataclass(frozen=True, slots=True)
class Member:
    """One entry of the archive."""

    name: str
    begin: int
    """Of its header, in what was read."""
    offset: int
    """Of its content."""
    size: int
    is_folder: bool
    refusal: Refusal | None
    """Of what is neither a folder nor a plain file below it."""
    read: Callable[[], bytes]
    """Its content, as long as no later member was asked for; only where it is not refused."""


def members_in(stream: BinaryIO) -> Iterator[Member]:
    """All that there are, and folders, from a header on to the end; Damaged where the archive is, and CutOff where it
    ends too early."""
    steps = cast(BinaryIO, InSteps(stream))
    with _plain_damage(), tarfile.open(fileobj=steps, mode="r|", bufsize=BUFFER, tarinfo=_Header) as archive:
        for header in _headers(archive):
            yield _member(archive, header)
        _check_end(archive)


def begins_of(path: Path) -> Iterator[int]:
    """Where the headers of a plain tar begin, without reading what is between them; Damaged or CutOff at its damage."""
    with path.open("rb") as file, _plain_damage(), tarfile.open(fileobj=file, mode="r:", tarinfo=_Header) as archive:
        yield from (header.offset for header in _headers(archive))


class _Header(tarfile.TarInfo):
    """Raises CutOff or ReadError, which tarfile passes on, wherever there is neither a member nor the mark of the
    end."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        header = super().frombuf(buf, encoding, errors)
        if header.size < 0 or (header.type in EXTENSIONS_OF_HEADERS and header.size > MOST_HEADER_BYTES):
            raise tarfile.ReadError(f"a header of {header.size} bytes")
        return header

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except (tarfile.EmptyHeaderError, tarfile.TruncatedHeaderError) as error:  # type: ignore[attr-defined]
            raise CutOff(f"{error} where a member or the end should be") from error
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"{error} where a member or the end should be") from error


@contextmanager
def _plain_damage() -> Iterator[None]:
    try:
        yield
    except tarfile.TarError as error:
        kind = CutOff if "end of data" in str(error) else Damaged
        raise kind(f"no whole tar file: {error}") from error


def _headers(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while (header := archive.next()) is not None:
        archive.members.clear()  # type: ignore[attr-defined] # it would hold them all
        yield header


def _member(archive: tarfile.TarFile, header: tarfile.TarInfo) -> Member:
    def read() -> bytes:
        content = archive.extractfile(header)
        assert content is not None, "it is a regular file"
        with _plain_damage():
            return content.read()

    return Member(
        name=header.name,
        begin=header.offset,
        offset=header.offset_data,
        size=header.size,
        is_folder=header.isdir(),
        refusal=None if header.isdir() else _refusal(header),
        read=read,
    )


def _refusal(header: tarfile.TarInfo) -> Refusal | None:
    """For what no archive of files has to hold."""
    name = header.name
    if PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive or name.startswith("\\"):
        return Refusal("absolute_path", "its name is absolute")
    if ".." in PurePosixPath(name.replace("\\", "/")).parts:
        return Refusal("parent_path", "its name leaves the folder")
    if header.issym() or header.islnk():
        return Refusal("link", f"it is a link, to {header.linkname!r}")
    if header.issparse():
        return Refusal("sparse", "it is sparse")
    if not header.isreg():
        return Refusal("device", "it is a device or the like")
    return None


def _check_end(archive: tarfile.TarFile) -> None:
    """Damaged if there is more than the zeros of the end, such as a second archive, which would be left out."""
    assert archive.fileobj is not None
    while block := archive.fileobj.read(BUFFER):
        if block.count(0) != len(block):
            raise Damaged("data after the end of the tar file; write one archive to a file")
