"""The source code of the running Python's standard library: about 30 MB of text that every machine has."""

import os
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from data_pipeline.config import BadInput
from data_pipeline.sources.decoding import Found, TextPolicy, decoded
from data_pipeline.sources.document import CorpusConfig, Document, Piece, Report, Span, Split, packed, split_of
from data_pipeline.sources.folder import LocalFolder

HELD_OUT = 0.1
LEFT_OUT = frozenset({"site-packages", "dist-packages", "__pycache__"})
"""Folders that are not the library's own."""


class StandardLibraryConfig(CorpusConfig):
    """One document per file; its id is its path in the library. A tenth of the files, by hash, is the split "valid"."""

    kind: Literal["standard_library"]

    def pieces(self, piece_bytes: int) -> list[Piece]:
        base = _base()
        spans = []
        for folder, folders, files in os.walk(base):
            folders[:] = [name for name in folders if name not in LEFT_OUT]
            for path in (Path(folder, name) for name in files if name.endswith(".py")):
                size = path.stat().st_size
                spans.append(Span(path.relative_to(base).as_posix(), 0, size, size))
        if not spans:
            raise BadInput("corpus.kind standard_library: this Python has no library as files; use corpus.kind files")
        return list(packed(None, sorted(spans, key=lambda span: span.name), piece_bytes))

    def read(self, piece: Piece, report: Report) -> Iterator[tuple[Split, Document]]:
        base = _base()
        for span in piece.spans:
            report.file = span.name
            data = (base / span.name).read_bytes()
            document = decoded(Found(span.name, data, span.name, 0, len(data)), TextPolicy(), report)
            if document is not None:
                yield split_of(span.name, HELD_OUT), document

    def stamp(self, piece: Piece) -> str | None:
        folder = LocalFolder(_base())
        stamps = [folder.stamp(span.name) for span in piece.spans]
        return None if None in stamps else " ".join(map(str, stamps))


def _base() -> Path:
    return Path(sysconfig.get_path("stdlib"))
