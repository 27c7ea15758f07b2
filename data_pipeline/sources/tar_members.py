"""The members of a tar file, in order and in bounded memory; what Python's tarfile passes over in silence is an error.

That is an archive that is cut off between two members, a damaged header, and data after the end. A member whose name
leaves the folder, a link, and a device are refused, and nothing is ever written or unpickled.
"""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath
from typing import IO, BinaryIO, Self

from data_pipeline.config import BadInput
from data_pipeline.sources.opening import Damaged

MOST_HEADER_BYTES = 1 << 20
"""Of extended headers and long names, which tarfile holds in memory."""
BUFFER = 1 << 18
EXTENSIONS_OF_HEADERS = (
    tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Member:
    """A regular file in the archive."""

    name: str
    offset: int
    """Of its content, in the uncompressed archive."""
    size: int
    content: IO[bytes]
    """To be read before the next member is asked for."""


def members_of(stream: BinaryIO, shown: str) -> Iterator[Member]:
    """Damaged where the archive is; BadInput, naming the member, for one that is refused."""
    try:
        with tarfile.open(fileobj=stream, mode="r|", bufsize=BUFFER, tarinfo=_Header) as archive:
            while (header := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined] # it would hold them all
                if header.isdir():
                    continue
                _check(header, shown)
                content = archive.extractfile(header)
                assert content is not None
                yield Member(header.name, header.offset_data, header.size, content)
            _check_end(archive)
    except tarfile.TarError as error:
        raise Damaged(f"no whole tar file: {error}") from error


class _Header(tarfile.TarInfo):
    """Raises ReadError, which tarfile passes on, wherever there is neither a member nor the mark of the end."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        header = super().frombuf(buf, encoding, errors)
        if header.type in EXTENSIONS_OF_HEADERS and header.size > MOST_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {header.size} bytes")
        return header

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"{error} where a member or the end should be") from error


def _check(header: tarfile.TarInfo, shown: str) -> None:
    """BadInput for what no archive of documents has to hold."""
    name = header.name
    problem = None
    if PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive or name.startswith("\\"):
        problem = "its name is absolute"
    elif ".." in PurePosixPath(name.replace("\\", "/")).parts:
        problem = "its name leaves the folder"
    elif header.issym() or header.islnk():
        problem = f"it is a link, to {header.linkname!r}"
    elif not header.isreg():
        problem = "it is a device or the like"
    elif header.issparse():
        problem = "it is sparse"
    if problem is not None:
        raise BadInput(f"{shown}: member {name!r} is refused: {problem}; pack regular files only, with relative names")


def _check_end(archive: tarfile.TarFile) -> None:
    """Damaged if there is more than the zeros of the end, such as a second archive, which would be left out."""
    assert archive.fileobj is not None
    while block := archive.fileobj.read(BUFFER):
        if block.count(0) != len(block):
            raise Damaged("data after the end of the tar file; write one archive to a file")
