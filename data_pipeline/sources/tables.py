"""Columns of Parquet and Arrow files, by groups: row groups of the one, record batches of the other.

Only the columns asked for are read, and at most a few MiB of rows at a time of Parquet, a record batch of Arrow. Text
comes as bytes, for neither format promises that it is UTF-8.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Protocol

from data_pipeline.archives.decompression import Damaged, allowance
from data_pipeline.sources.document import Report
from data_pipeline.sources.folder import Unreachable

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_BYTES = 1 << 23
"""Of the rows of Parquet that are decoded at a time."""
MOST_ROWS = 1024
ENDLESS = 1 << 62
"""The groups of a stream, whose number only its end tells."""

Row = tuple[bytes | str | int | None, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """Consecutive rows that are read together."""

    number: int
    size: int
    """About how many bytes its columns have."""


class Table(Protocol):
    """An open file."""

    schema: "pa.Schema"

    def groups(self, columns: Sequence[str]) -> list[Group]:
        """In order; none for a stream, which can only be read from its beginning."""

    def rows(self, start: int, stop: int, columns: Sequence[str], report: Report) -> Iterator[tuple[int, int, Row]]:
        """(group, row in it, values) of the groups [start, stop); a group that expands too far is cut off there."""


@contextmanager
def opened_table(file: BinaryIO) -> Iterator[Table]:
    """By what the file begins with; Damaged for none of the formats, also while it is used."""
    import pyarrow as pa  # slow to import, needed by few

    from data_pipeline.sources.arrow_table import ArrowFile, ArrowStream
    from data_pipeline.sources.parquet_table import ParquetTable

    magic = file.read(6)
    file.seek(0)
    try:
        if magic.startswith(b"PAR1"):
            yield ParquetTable(file)
        elif magic == b"ARROW1":
            yield ArrowFile(file)
        elif magic.startswith(b"FEA1"):
            raise Damaged("the first version of Feather is no longer written or read; convert it to Parquet or Arrow")
        else:
            yield ArrowStream(file)
    except pa.ArrowException as error:
        raise Damaged(f"neither Parquet nor Arrow that can be read: {error}") from error
    except OSError as error:
        if error.errno is not None or isinstance(error, Unreachable):
            raise
        raise Damaged(f"damaged: {error}") from error  # pyarrow's own, about pages that cannot be decompressed


def values_of(column: "pa.Array") -> Iterator[bytes | str | int | None]:
    """Strings as their bytes, integers as they are, one at a time."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_dictionary(kind):
        words = column.dictionary.cast(pa.large_binary()) if is_text(kind) else column.dictionary
        yield from (None if index is None else words[index].as_py() for index in column.indices.to_pylist())
    else:
        plain = column.cast(pa.large_binary()) if is_text(kind) else column
        yield from (value.as_py() for value in plain)


def is_text(kind: "pa.DataType") -> bool:
    """Whether values of the type are text, or bytes that may be."""
    import pyarrow as pa

    inner = kind.value_type if pa.types.is_dictionary(kind) else kind
    tests = ("is_string", "is_large_string", "is_string_view", "is_binary", "is_large_binary", "is_binary_view")
    return any(getattr(pa.types, test)(inner) for test in tests)


def within(rows: Iterator[tuple[int, int, Row]], stored: int, report: Report) -> Iterator[tuple[int, int, Row]]:
    """The rows until their text is more than what so many stored bytes may grow to."""
    left = allowance(stored)
    for group, number, row in rows:
        left -= sum(len(value) for value in row if isinstance(value, bytes))
        if left < 0:
            report.add("expands_too_far", f"{report.file}:{group}:{number}", number)
            return
        yield group, number, row
