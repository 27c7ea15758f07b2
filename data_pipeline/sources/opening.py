"""Opening a file of a corpus, plain or compressed, wherever it is; and the parts in which it is read."""

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from data_pipeline.archives.decompression import decompressed, is_compressed
from data_pipeline.sources.byte_ranges import Range
from data_pipeline.sources.document import Span
from data_pipeline.sources.folder import Folder


def byte_spans(name: str, size: int, piece_bytes: int) -> Iterator[Span]:
    """A file cut into spans of about `piece_bytes`, or whole if it is compressed."""
    step = size if is_compressed(name) or size <= piece_bytes else piece_bytes
    for start in range(0, max(size, 1), max(step, 1)):
        stop = min(start + step, size)
        yield Span(name, start, stop, stop - start)


def range_of(span: Span) -> Range:
    """The bytes of the uncompressed content that a span stands for."""
    return Range(span.start, sys.maxsize if is_compressed(span.name) else span.stop)


@contextmanager
def opened(folder: Folder, name: str) -> Iterator[io.BufferedReader]:
    """The file's uncompressed content; reading it raises ExpandsTooFar, OSError or one of `DAMAGE`."""
    with folder.open(name) as file, decompressed(file, name) as stream:
        yield cast(io.BufferedReader, stream)
