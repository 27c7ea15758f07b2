"""The content of a Zstandard file, block by block: all that is before damage is given before the damage is told.

Walks the frames of RFC 8878 from block header to block header, for the library's reader takes a file that was cut off
for one that ends there, and gives nothing of what it has decompressed together with damage.
"""

from collections.abc import Iterator
from typing import BinaryIO

import zstandard

LONGEST_HEADER = 18
SKIPPABLE = range(0x184D2A50, 0x184D2A60)
"""Magic numbers of frames without content."""
RUN_LENGTH = 1
"""Type of a block that is stored as one byte."""


def zstandard_content(file: BinaryIO) -> Iterator[bytes]:
    """All frames' content, from the file's start. EOFError if it ends within one; zstandard.ZstdError for other
    damage."""
    decompressor = zstandard.ZstdDecompressor()
    size, position = file.seek(0, 2), 0
    while position < size:
        file.seek(position)
        header = file.read(LONGEST_HEADER)
        if int.from_bytes(header[:4], "little") in SKIPPABLE:
            position += 8 + int.from_bytes(header[4:8], "little")
            continue
        file.seek(position)
        yield from _frame(file, header, decompressor)
        position = file.tell()
    if position > size:
        raise EOFError(f"the file ends within a frame, {position - size} bytes or more too early")


def _frame(file: BinaryIO, beginning: bytes, decompressor: zstandard.ZstdDecompressor) -> Iterator[bytes]:
    has_checksum = _has_checksum(beginning)
    frame = decompressor.decompressobj()
    frame.decompress(_exactly(file, zstandard.frame_header_size(beginning)))
    last = False
    while not last:
        header = _exactly(file, 3)
        block = int.from_bytes(header, "little")
        last, kind, length = bool(block & 1), block >> 1 & 3, block >> 3
        if part := frame.decompress(header + _exactly(file, 1 if kind == RUN_LENGTH else length)):
            yield part
    if has_checksum:
        frame.decompress(_exactly(file, 4))


def _has_checksum(beginning: bytes) -> bool:
    try:
        return zstandard.get_frame_parameters(beginning).has_checksum
    except zstandard.ZstdError as error:
        if len(beginning) < LONGEST_HEADER and zstandard.FRAME_HEADER.startswith(beginning[:4]):
            raise EOFError("the file ends within a frame's header") from error
        raise


def _exactly(file: BinaryIO, size: int) -> bytes:
    data = file.read(size)
    if len(data) < size:
        raise EOFError(f"the file ends within a frame, {size - len(data)} bytes or more too early")
    return data
