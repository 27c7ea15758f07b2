"""JSON lines: plain, .gz or .zst, one object with the text on each line."""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from data_pipeline.sources.byte_ranges import documents_in
from data_pipeline.sources.decoding import Found
from data_pipeline.sources.document import Report, Span
from data_pipeline.sources.file_corpus import FileCorpus, SkipOrStop
from data_pipeline.sources.folder import Folder
from data_pipeline.sources.json_record import JsonFields
from data_pipeline.sources.opening import byte_spans, opened, range_of


class JsonlConfig(FileCorpus):
    """A document's id is what `id_field` holds; without one, its file's name and its line's byte offset."""

    kind: Literal["jsonl"]
    text_field: str = Field(default="text", min_length=1)
    """Of the object; dots lead into objects within it, as in `page.text`."""
    id_field: str | None = Field(default=None, min_length=1)
    """A string or an integer, of its own for each document."""
    bad_record: SkipOrStop = "skip"
    """What to do about a line that is no JSON object, or has no text or id where it should."""

    def spans_of(self, folder: Folder, name: str, size: int, piece_bytes: int) -> Iterator[Span]:
        return byte_spans(name, size, piece_bytes)

    def found_in(self, folder: Folder, span: Span, report: Report) -> Iterator[Found]:
        fields = JsonFields(self.text_field, self.id_field, self.bad_record, self.invalid_utf8)
        with opened(folder, span.name) as stream:
            place = range_of(span)
            for line in documents_in(stream, place, unit="line", max_bytes=self.max_document_bytes, report=report):
                offset = f"{span.name}:{line.offset}"
                report.start = line.offset
                if not line.data.strip():
                    report.add("empty", offset)
                    continue
                record = fields.read(offset, line.data, report)
                if record is not None:
                    identity, text = record
                    yield Found(identity or offset, text, span.name, line.offset, line.offset + len(line.data))
