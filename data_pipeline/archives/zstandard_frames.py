"""Whether a Zstandard file is whole: the library's reader takes one that was cut off for one that ends there.

Walks the frames of RFC 8878 from block header to block header, without decompressing.
"""

from typing import BinaryIO

import zstandard

LONGEST_HEADER = 18
SKIPPABLE = range(0x184D2A50, 0x184D2A60)
"""Magic numbers of frames without content."""
RUN_LENGTH = 1
"""Type of a block that is stored as one byte."""


def check_whole(file: BinaryIO) -> None:
    """Leaves the file at its start. EOFError if it ends within a frame; zstandard.ZstdError for no frame at all."""
    size = file.seek(0, 2)
    position = 0
    while position < size:
        position = _end_of_frame(file, position)
    if position > size:
        raise EOFError(f"the file ends within a frame, {position - size} bytes or more too early")
    file.seek(0)


def _end_of_frame(file: BinaryIO, position: int) -> int:
    file.seek(position)
    header = file.read(LONGEST_HEADER)
    if int.from_bytes(header[:4], "little") in SKIPPABLE:
        return position + 8 + int.from_bytes(header[4:8], "little")
    has_checksum = zstandard.get_frame_parameters(header).has_checksum
    position += zstandard.frame_header_size(header)
    last = False
    while not last:
        file.seek(position)
        block = int.from_bytes(file.read(3).ljust(3, b"\x01"), "little")
        last, kind, length = bool(block & 1), block >> 1 & 3, block >> 3
        position += 3 + (1 if kind == RUN_LENGTH else length)
    return position + 4 * has_checksum
