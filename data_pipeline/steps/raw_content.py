"""Whether a piece of the corpus is still the text that was read before."""

from collections.abc import Iterator

import xxhash

from data_pipeline.config import BadInput
from data_pipeline.sources.document import CorpusConfig, Document, Piece, Report, Split
from data_pipeline.sources.whole_documents import whole_documents


class RawContent:
    """Reads a piece, and then knows what was in it."""

    def __init__(self, corpus: CorpusConfig, piece: Piece) -> None:
        self._corpus, self._piece = corpus, piece
        self._digest = xxhash.xxh3_128()
        self.num_documents = 0
        self.num_bytes = 0

    def read(self, report: Report) -> Iterator[tuple[Split, Document]]:
        for split, document in whole_documents(self._corpus.read(self._piece, report)):
            self._digest.update(f"{split}\0{document.id}\0{document.num_bytes}\0".encode())
            self._digest.update(document.text.encode())
            self.num_documents += 1
            self.num_bytes += document.num_bytes
            yield split, document

    @property
    def hash(self) -> str:
        """Over what was read so far: splits, ids and texts."""
        return self._digest.hexdigest()

    def check(self, expected: str) -> None:
        """BadInput if what was read is not what was read before."""
        if self.hash != expected:
            raise changed(self._piece)


def changed(piece: Piece) -> BadInput:
    """What to raise where a piece is no longer what it was."""
    return BadInput(
        f"corpus: {piece.spans[0].name} (or a file after it) changed while it was prepared; run `launch.py prepare` "
        "again"
    )
