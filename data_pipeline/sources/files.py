"""Text files: plain, .gz or .zst; a document is a whole file, a line, a paragraph, or what a separator ends."""

import re
from collections.abc import Iterator
from typing import Literal, Self

from pydantic import Field, model_validator

from data_pipeline.archives.decompression import is_compressed
from data_pipeline.config import BadInput
from data_pipeline.sources.byte_ranges import DocumentUnit, documents_in, overlaps_itself
from data_pipeline.sources.decoding import Found
from data_pipeline.sources.document import Piece, Report, Span
from data_pipeline.sources.file_corpus import FileCorpus
from data_pipeline.sources.folder import Folder
from data_pipeline.sources.giants import END_OF_LINE, END_OF_PARAGRAPH, giants_in, spans_with_giants
from data_pipeline.sources.opening import byte_spans, opened, range_of

FEWEST_FILES = 10
"""With fewer whole-file documents than this, a held-out share by hash is likely to be empty."""


class FilesConfig(FileCorpus):
    """A document's id is its file's name, with its byte offset if it is a part of the file."""

    kind: Literal["files"]
    document: DocumentUnit
    """A whole file, a line, a paragraph (ended by lines that are empty but for white space), or what stands between
    separators."""
    separator: str | None = Field(default=None, min_length=1, exclude_if=lambda value: value is None)
    """With `document: separator`, the text that parts documents and belongs to none, such as <|endoftext|>."""

    @property
    def file_is_document(self) -> bool:
        return self.document == "file"

    @model_validator(mode="after")
    def _check_separator(self) -> Self:
        if (self.document == "separator") != (self.separator is not None):
            if self.separator is None:
                raise ValueError("document: separator needs a separator, the text between documents; give one")
            raise ValueError(
                f"separator {self.separator!r} is for document: separator, and document is {self.document}; leave one "
                "of them out"
            )
        return self

    def pieces(self, piece_bytes: int) -> list[Piece]:
        pieces = super().pieces(piece_bytes)
        hashed = sum(not span.continues for piece in pieces if piece.split is None for span in piece.spans)
        if self.document == "file" and 0 < hashed < FEWEST_FILES:
            raise BadInput(
                f"corpus.held_out {self.held_out}: {hashed} whole-file documents are too few to hold some out (fewer "
                f"than {FEWEST_FILES}); set corpus.document to blank_line or line, or name corpus.valid files, or set "
                "corpus.held_out to 0"
            )
        return pieces

    def spans_of(self, folder: Folder, name: str, size: int, piece_bytes: int) -> Iterator[Span]:
        can_be_cut = not is_compressed(name) and (self.document == "file" or self._end is not None)
        giants = giants_in(folder, name, size, self._end) if can_be_cut else []
        if giants:
            yield from spans_with_giants(folder, name, size, piece_bytes, giants, self.max_document_bytes)
            return
        whole = self.document == "file" or overlaps_itself(self._separator)
        yield from super().spans_of(folder, name, size, piece_bytes) if whole else byte_spans(name, size, piece_bytes)

    def found_in(self, folder: Folder, span: Span, report: Report) -> Iterator[Found]:
        with opened(folder, span.name) as stream:
            parts = documents_in(
                stream,
                range_of(span),
                unit=self.document,
                max_bytes=self.max_document_bytes,
                report=report,
                separator=self._separator,
            )
            for part in parts:
                identity = self.identity_of(span.name, part.offset)
                yield Found(identity, part.data, span.name, part.offset, part.offset + len(part.data))

    def identity_of(self, name: str, offset: int) -> str:
        return name if self.document == "file" else super().identity_of(name, offset)

    @property
    def _end(self) -> re.Pattern[bytes] | None:
        """What a document ends with; None for the end of the file, or where only reading from the beginning tells."""
        if self.separator is not None:
            return None if overlaps_itself(self._separator) else re.compile(re.escape(self._separator))
        return {"line": END_OF_LINE, "blank_line": END_OF_PARAGRAPH}.get(self.document)

    @property
    def _separator(self) -> bytes:
        return (self.separator or "").encode()
