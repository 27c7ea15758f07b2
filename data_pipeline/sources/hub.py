"""Text columns of Hugging Face data sets (https://huggingface.co/docs/datasets): from the hub, streamed or not, from a
local folder of files, or from one that `save_to_disk` wrote."""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from data_pipeline.config import BadInput
from data_pipeline.redaction import redact
from data_pipeline.sources.decoding import Found, TextPolicy, decoded
from data_pipeline.sources.document import CorpusConfig, Document, Piece, Report, Span, Split, packed, split_of

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

POLICY = TextPolicy()


class HubConfig(CorpusConfig):
    """One document per row; its id is the table's split and the row's number, streamed also the shard's."""

    kind: Literal["hub"]
    name: str
    """Of the data set, as in `datasets.load_dataset(name)`; or the folder that `Dataset.save_to_disk` wrote."""
    config: str | None = None
    revision: str | None = None
    """A commit or tag: without one, the data may change between runs."""
    streaming: bool = Field(default=False, exclude_if=lambda value: value is False)
    """Read the hub's shards where they lie, each as a piece, instead of copying all of them here first."""
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
                spans = (self._shards if self.streaming else self._rows)(self.splits[split], piece_bytes)
                pieces += packed(None if hashed and split == "train" else split, spans, piece_bytes)
        if not pieces:
            raise BadInput(f"corpus.name {self.name}: its splits {self.splits} have no rows; choose others")
        return pieces

    def read(self, piece: Piece, report: Report) -> Iterator[tuple[Split, Document]]:
        for span in piece.spans:
            report.file, report.start = span.name, None
            for found in (self._found_in_shard if self.streaming else self._found_in_table)(span, report):
                document = decoded(found, POLICY, report)
                if document is not None:
                    yield piece.split or split_of(document.id, self.held_out), document

    def _rows(self, name: str, piece_bytes: int) -> Iterator[Span]:
        table = _table(self.name, self.config, name, self.revision)
        self._check_columns(table.column_names)
        row_bytes = max(1, table.data.nbytes // max(1, len(table)))
        step = max(1, piece_bytes // row_bytes)
        for start in range(0, len(table), step):
            stop = min(start + step, len(table))
            yield Span(name, start, stop, (stop - start) * row_bytes)

    def _shards(self, name: str, piece_bytes: int) -> Iterator[Span]:
        stream = _stream(self.name, self.config, name, self.revision)
        if stream.column_names is not None:
            self._check_columns(stream.column_names)
        for shard in range(stream.num_shards):
            yield Span(name, shard, shard + 1, piece_bytes)

    def _found_in_table(self, span: Span, report: Report) -> Iterator[Found]:
        column = _table(self.name, self.config, span.name, self.revision)[self.text_field]
        for row in range(span.start, span.stop):
            text = self._text(f"{span.name}:{row}", column[row], report)
            if text is not None:
                yield Found(f"{span.name}:{row}", text, span.name, row, row + 1)

    def _found_in_shard(self, span: Span, report: Report) -> Iterator[Found]:
        stream = _stream(self.name, self.config, span.name, self.revision)
        for number in range(span.start, span.stop):
            source = f"{span.name}:{number}"
            for row, record in enumerate(stream.shard(num_shards=stream.num_shards, index=number)):
                self._check_columns(list(record))
                text = self._text(f"{source}:{row}", record[self.text_field], report)
                if text is not None:
                    yield Found(f"{source}:{row}", text, source, row, row + 1)

    def _check_columns(self, names: list[str]) -> None:
        if self.text_field not in names:
            raise BadInput(f"corpus.text_field {self.text_field}: {self.name} has the columns {', '.join(names)}")

    def _text(self, place: str, value: Any, report: Report) -> str | None:
        if value is None:
            report.add("empty", place)
            return None
        if not isinstance(value, str):
            raise BadInput(f"corpus.text_field {self.text_field}: {place} is {type(value).__name__}, not text")
        return value


@lru_cache(maxsize=8)
def _table(name: str, config: str | None, split: str, revision: str | None) -> "Dataset":
    return _loaded(name, config, split, revision, streaming=False)


@lru_cache(maxsize=8)
def _stream(name: str, config: str | None, split: str, revision: str | None) -> "IterableDataset":
    return _loaded(name, config, split, revision, streaming=True)


def _loaded(name: str, config: str | None, split: str, revision: str | None, *, streaming: bool) -> Any:
    import datasets  # slow to import, needed by few

    try:
        if Path(name, "dataset_dict.json").is_file():
            return _as_asked(datasets.load_from_disk(name)[split], streaming)
        if Path(name, "state.json").is_file():
            return _as_asked(_only_split(datasets.load_from_disk(name), split), streaming)
        return datasets.load_dataset(name, config, split=split, revision=revision, streaming=streaming)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise BadInput(
            f"corpus.name {name} (config {config}, split {split}, revision {revision}): cannot be loaded "
            f"({type(error).__name__}: {redact(str(error))}); check the names, or, without a network, load it once on "
            "a machine that has one and copy the cache, or use corpus.kind files"
        ) from error


def _as_asked(table: Any, streaming: bool) -> Any:
    return table.to_iterable_dataset() if streaming else table


def _only_split(table: Any, split: str) -> Any:
    """Of a folder that holds a single table."""
    if table.split is not None and str(table.split) != split:
        raise ValueError(f"the folder holds the split {table.split} only")
    return table
