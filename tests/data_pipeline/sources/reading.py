"""Reading a corpus of any kind in tests."""

from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from data_pipeline.sources import Corpus
from data_pipeline.sources.document import CorpusConfig, Document, Report


def corpus_of(kind: str, place: Path | str, pattern: str = "*", **fields: Any) -> CorpusConfig:
    """Of all files in a folder, none of them held out."""
    given = {"kind": kind, "directory": str(place), "train": [pattern], "held_out": 0.0} | fields
    return TypeAdapter(Corpus).validate_python(given)


def read(corpus: CorpusConfig, piece_bytes: int = 1 << 30) -> tuple[list[Document], dict[str, int]]:
    """All documents, and the report."""
    report = Report()
    documents = [one for piece in corpus.pieces(piece_bytes) for _, one in corpus.read(piece, report)]
    return documents, dict(report.counts)


def texts(corpus: CorpusConfig) -> list[str]:
    """Of all documents."""
    return [document.text for document in read(corpus)[0]]
