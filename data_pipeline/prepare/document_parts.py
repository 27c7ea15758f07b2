"""How preparing reads: documents of a piece, in batches."""

from collections.abc import Iterator

from data_pipeline.sources import Corpus
from data_pipeline.sources.document import Piece, Report
from data_pipeline.sources.whole_documents import SplitDocument
from data_pipeline.steps.cleaned_corpus import CleanedCorpus


def documents_of(corpus: Corpus | CleanedCorpus, piece: Piece, report: Report) -> Iterator[SplitDocument]:
    """All that a piece has: the one place where preparing reads the corpus."""
    return corpus.read(piece, report)


def batches(documents: Iterator[SplitDocument], num_bytes: int) -> Iterator[list[SplitDocument]]:
    """Consecutive ones that have at least so many bytes together."""
    batch: list[SplitDocument] = []
    size = 0
    for split, document in documents:
        batch.append((split, document))
        size += document.num_bytes
        if size >= num_bytes:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
