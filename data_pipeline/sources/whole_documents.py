"""Documents that come in parts, put together where they must be."""

from collections.abc import Iterator, Sequence

from data_pipeline.sources.document import Document, Piece, Split

SplitDocument = tuple[Split, Document]


def whole_documents(documents: Iterator[SplitDocument]) -> Iterator[SplitDocument]:
    """With the parts of each document put together: for tokenizers that would tell where it was cut."""
    parts: list[Document] = []
    for split, document in documents:
        parts.append(document)
        if document.more:
            continue
        if len(parts) > 1:
            document = Document(
                id=parts[0].id,
                text="".join(part.text for part in parts),
                num_bytes=sum(part.num_bytes for part in parts),
                source=document.source,
                start=parts[0].start,
                stop=document.stop,
            )
        parts.clear()
        yield split, document


def with_whole_documents(pieces: Sequence[Piece]) -> list[Piece]:
    """The pieces, those together that have parts of one document."""
    together: list[Piece] = []
    for piece in pieces:
        if together and together[-1].spans[-1].more:
            together[-1] = Piece(piece.split, together[-1].spans + piece.spans)
        else:
            together.append(piece)
    return together
