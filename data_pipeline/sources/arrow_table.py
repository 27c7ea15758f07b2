"""Arrow files (also called Feather 2) and Arrow streams (https://arrow.apache.org/docs/format/Columnar.html)."""

import io
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, BinaryIO

from data_pipeline.archives.decompression import Damaged
from data_pipeline.sources.document import Report
from data_pipeline.sources.tables import Group, Row, values_of, within

if TYPE_CHECKING:
    import pyarrow as pa


class ArrowFile:
    """Its record batches can be read in any order."""

    def __init__(self, file: BinaryIO) -> None:
        import pyarrow as pa

        self._file, self._size, self._pa = file, _size_of(file), pa
        with pa.ipc.open_file(file) as reader:
            self.schema: pa.Schema = reader.schema
            self._num_batches = reader.num_record_batches

    def groups(self, columns: Sequence[str]) -> list[Group]:
        return [Group(number, self._size // self._num_batches) for number in range(self._num_batches)]

    def rows(self, start: int, stop: int, columns: Sequence[str], report: Report) -> Iterator[tuple[int, int, Row]]:
        options = self._pa.ipc.IpcReadOptions(
            included_fields=[self.schema.get_field_index(name) for name in columns], use_threads=False
        )
        with self._pa.ipc.open_file(self._file, options=options) as reader:
            for number in range(start, min(stop, self._num_batches)):
                yield from within(_rows_of(reader.get_batch(number), number, columns), self._size, report)


class ArrowStream:
    """Its record batches follow each other, and their number is not written anywhere."""

    def __init__(self, file: BinaryIO) -> None:
        import pyarrow as pa

        self._file, self._size, self._pa = file, _size_of(file), pa
        with pa.ipc.open_stream(file) as reader:
            self.schema: pa.Schema = reader.schema

    def groups(self, columns: Sequence[str]) -> list[Group]:
        return []

    def rows(self, start: int, stop: int, columns: Sequence[str], report: Report) -> Iterator[tuple[int, int, Row]]:
        options = self._pa.ipc.IpcReadOptions(
            included_fields=[self.schema.get_field_index(name) for name in columns], use_threads=False
        )
        self._file.seek(0)
        with self._pa.ipc.open_stream(self._file, options=options) as reader:
            for number, batch in enumerate(reader):
                yield from within(_rows_of(batch, number, columns), self._size, report)
        self._check_end()

    def _check_end(self) -> None:
        """A stream that is cut off between two record batches ends without its mark, which pyarrow does not mind."""
        self._file.seek(-8, io.SEEK_END)
        if self._file.read(8) != b"\xff\xff\xff\xff\0\0\0\0":
            raise Damaged("an Arrow stream without its end; it was cut off")


def _rows_of(batch: "pa.RecordBatch", number: int, columns: Sequence[str]) -> Iterator[tuple[int, int, Row]]:
    rows = zip(*(values_of(batch.column(name)) for name in columns), strict=True)
    yield from ((number, place, row) for place, row in enumerate(rows))


def _size_of(file: BinaryIO) -> int:
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    return size
