"""Parquet and Arrow files, one document a row."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from data_pipeline.archives.decompression import DAMAGE
from data_pipeline.config import BadInput
from data_pipeline.sources.decoding import Found
from data_pipeline.sources.document import Reason, Report, Span
from data_pipeline.sources.file_corpus import FileCorpus, SkipOrStop
from data_pipeline.sources.folder import Folder
from data_pipeline.sources.tables import ENDLESS, Row, Table, is_text, opened_table

if TYPE_CHECKING:
    import pyarrow as pa


class ParquetConfig(FileCorpus):
    """A document's id is what `id_field` holds; without one its file's name, its row group (record batch of Arrow), and
    its row there."""

    kind: Literal["parquet"]
    text_field: str = Field(default="text", min_length=1)
    """The column."""
    id_field: str | None = Field(default=None, min_length=1)
    """A column of strings or integers, one of its own for each document."""
    bad_record: SkipOrStop = "skip"
    """What to do about a row without text or id."""

    def spans_of(self, folder: Folder, name: str, size: int, piece_bytes: int) -> Iterator[Span]:
        """In row groups; what cannot be read is left to the reader, which knows what to do about it."""
        try:
            with folder.open(name) as file, opened_table(file) as table:
                self._check(f"{folder.shown}/{name}", table)
                groups = table.groups(self._columns)
        except DAMAGE:
            groups = []
        if not groups:
            yield Span(name, 0, ENDLESS if size else 0, size)
            return
        start, held = 0, 0
        for group in groups:
            if held and held + group.size > piece_bytes:
                yield Span(name, start, group.number, held)
                start, held = group.number, 0
            held += group.size
        yield Span(name, start, len(groups), held)

    def listed(self, span: Span) -> tuple[str | int, ...]:
        """Groups are no sizes."""
        return span.name, span.start, span.stop, span.size

    def found_in(self, folder: Folder, span: Span, report: Report) -> Iterator[Found]:
        with folder.open(span.name) as file, opened_table(file) as table:
            self._check(f"{folder.shown}/{span.name}", table)
            for group, number, row in table.rows(span.start, span.stop, self._columns, report):
                place = f"{span.name}:{group}:{number}"
                report.start = number
                found = self._found(place, row, report)
                if found is not None:
                    identity, text = found
                    yield Found(identity, text, f"{span.name}:{group}", number, number + 1)

    @property
    def _columns(self) -> list[str]:
        return [self.text_field, *([self.id_field] if self.id_field else [])]

    def _check(self, file: str, table: Table) -> None:
        for field, column in (("text_field", self.text_field), ("id_field", self.id_field)):
            if column is None:
                continue
            if column not in table.schema.names:
                columns = ", ".join(table.schema.names)
                raise BadInput(f"corpus.{field} {column}: {file} has the columns {columns}; name one of them")
            kind = table.schema.field(column).type
            if not is_text(kind) and not (field == "id_field" and _is_integer(kind)):
                raise BadInput(f"corpus.{field} {column}: in {file} it is {kind}, not text; name another column")

    def _found(self, place: str, row: Row, report: Report) -> tuple[str, bytes] | None:
        text = row[0]
        if not isinstance(text, bytes):
            return self._bad(place, "no_text", self.text_field, report)
        if len(text) > self.max_document_bytes:
            report.add("too_long", place)
            return None
        if self.id_field is None:
            return place, text
        identity = row[1].decode("utf-8", errors="replace") if isinstance(row[1], bytes) else row[1]
        if identity in (None, ""):
            return self._bad(place, "no_id", self.id_field, report)
        return str(identity), text

    def _bad(self, place: str, reason: Reason, column: str, report: Report) -> tuple[str, bytes] | None:
        if self.bad_record == "stop":
            raise BadInput(f"{place}: has no {column}; mend it, or set corpus.bad_record to skip")
        report.add(reason, place)
        return None


def _is_integer(kind: "pa.DataType") -> bool:
    import pyarrow as pa

    return bool(pa.types.is_integer(kind))
