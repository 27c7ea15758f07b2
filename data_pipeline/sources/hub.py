"""Text columns of Hugging Face data sets (https://huggingface.co/docs/datasets), from the hub or a local folder."""

from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from data_pipeline.config import BadInput
from data_pipeline.sources.document import CorpusConfig, Document, Piece, Report, Span, Split, decoded, packed, split_of

if TYPE_CHECKING:
    from datasets import Dataset


class HubConfig(CorpusConfig):
    """One document per row; its id is the table's split and the row's number."""

    kind: Literal["hub"]
    name: str
    """Of the data set, as in `datasets.load_dataset(name)`."""
    config: str | None = None
    revision: str | None = None
    """A commit or tag: without one, the data may change between runs."""
    text_field: str = "text"
    splits: dict[Split, str] = Field(default={"train": "train"}, min_length=1)
    """Which of the data set's splits are ours; "train" is required."""
    held_out: float = Field(default=0.1, ge=0.0, lt=1.0)
    """Where `splits` has no "valid": the share of the train rows, by hash of the id, that becomes "valid"."""

    def pieces(self, piece_bytes: int) -> list[Piece]:
        if "train" not in self.splits:
            raise BadInput("corpus.splits: has no train; name the data set's split to train on")
        hashed = "valid" not in self.splits and self.held_out > 0
        pieces: list[Piece] = []
        for split in ("train", "valid", "test"):
            if split in self.splits:
                spans = self._spans(self.splits[split], piece_bytes)
                pieces += packed(None if hashed and split == "train" else split, spans, piece_bytes)
        if not pieces:
            raise BadInput(f"corpus.name {self.name}: its splits {self.splits} have no rows; choose others")
        return pieces

    def read(self, piece: Piece, report: Report) -> Iterator[tuple[Split, Document]]:
        for span in piece.spans:
            column = self._table(span.name)[self.text_field]
            for row in range(span.start, span.stop):
                identity, text = f"{span.name}:{row}", column[row]
                document = decoded(identity, (text or "").encode("utf-8", errors="replace"), "skip", report)
                if document is not None:
                    yield piece.split or split_of(identity, self.held_out), document

    def _spans(self, name: str, piece_bytes: int) -> Iterator[Span]:
        table = self._table(name)
        if self.text_field not in table.column_names:
            columns = ", ".join(table.column_names)
            raise BadInput(f"corpus.text_field {self.text_field}: {self.name} has the columns {columns}")
        row_bytes = max(1, table.data.nbytes // max(1, len(table)))
        step = max(1, piece_bytes // row_bytes)
        for start in range(0, len(table), step):
            stop = min(start + step, len(table))
            yield Span(name, start, stop, (stop - start) * row_bytes)

    def _table(self, split: str) -> "Dataset":
        return _load(self.name, self.config, split, self.revision)


@lru_cache(maxsize=8)
def _load(name: str, config: str | None, split: str, revision: str | None) -> "Dataset":
    from datasets import load_dataset  # slow to import, needed by few

    try:
        return load_dataset(name, config, split=split, revision=revision)
    except (OSError, ValueError, RuntimeError) as error:
        raise BadInput(
            f"corpus.name {name} (config {config}, split {split}, revision {revision}): cannot be loaded "
            f"({type(error).__name__}: {error}); check the names, or, without a network, load it once on a machine "
            "that has one and copy the cache, or use corpus.kind files"
        ) from error
