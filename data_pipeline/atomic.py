"""Files that are there whole or not at all, whatever interrupts the writing."""

import hashlib
import os
import socket
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from data_pipeline.config import BadInput


def write_atomically(path: Path, data: bytes) -> None:
    """Written beside its place, brought to the disk, then renamed; BadInput if the directory cannot be written.

    Any number of threads, processes and machines may write the same file: the last one's stays, whole. The draft's name
    is random, since processes in containers that share a disk may have equal numbers; it ends in `.tmp`.
    """
    temporary = path.with_name(f"{path.name}.{socket.gethostname()}-{uuid4().hex[:12]}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
        _sync_directory(path.parent)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise BadInput(
            f"{path}: cannot be written ({error.strerror}); free space, permit writing, or choose another directory"
        ) from error


def sha256_of(path: Path) -> str:
    """Of a file's content, read in blocks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
