"""A Parquet file (https://parquet.apache.org/docs/file-format) by its row groups."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

from data_pipeline.archives.decompression import allowance
from data_pipeline.sources.document import Report
from data_pipeline.sources.tables import MOST_ROWS, ROWS_BYTES, Group, Row, is_text, values_of, within

if TYPE_CHECKING:
    import pyarrow as pa

BUFFER = 1 << 20
"""Bytes read from the file at a time."""


class ParquetTable:
    """Text is decoded as a dictionary, so that a long value that is repeated is in memory once."""

    def __init__(self, file: BinaryIO) -> None:
        import pyarrow.parquet as parquet

        self._file, self._parquet = file, parquet
        plain = parquet.ParquetFile(file)
        self.schema: pa.Schema = plain.schema_arrow
        self._metadata = plain.metadata

    def groups(self, columns: Sequence[str]) -> list[Group]:
        return [Group(number, self._sizes(number, columns)[1]) for number in range(self._metadata.num_row_groups)]

    def rows(self, start: int, stop: int, columns: Sequence[str], report: Report) -> Iterator[tuple[int, int, Row]]:
        texts = [name for name in columns if is_text(self.schema.field(name).type)]
        file = self._parquet.ParquetFile(self._file, read_dictionary=texts, buffer_size=BUFFER)
        for group in range(start, min(stop, self._metadata.num_row_groups)):
            stored, decoded = self._sizes(group, columns)
            if decoded > allowance(stored):
                report.add("expands_too_far", f"{report.file}:{group}")
                continue
            yield from within(self._rows_of(file, group, decoded, columns), stored, report)

    def _rows_of(self, file: Any, group: int, size: int, columns: Sequence[str]) -> Iterator[tuple[int, int, Row]]:
        row_bytes = size // max(1, self._metadata.row_group(group).num_rows)
        step = max(1, min(MOST_ROWS, ROWS_BYTES // max(1, row_bytes)))
        number = 0
        for batch in file.iter_batches(step, row_groups=[group], columns=list(columns), use_threads=False):
            for row in zip(*(values_of(batch.column(name)) for name in columns), strict=True):
                yield group, number, row
                number += 1

    def _sizes(self, group: int, columns: Sequence[str]) -> tuple[int, int]:
        """Of a row group's columns: bytes stored, and bytes when decompressed."""
        row_group = self._metadata.row_group(group)
        chunks = [row_group.column(number) for number in range(row_group.num_columns)]
        ours = [chunk for chunk in chunks if chunk.path_in_schema in columns]
        return sum(one.total_compressed_size for one in ours), sum(one.total_uncompressed_size for one in ours)
