"""A directory of token shards as data of a run: how it is read, and what happens where it is damaged."""

from pathlib import Path
from typing import Literal

from data_pipeline.config import Config
from data_pipeline.manifest import Manifest, read_manifest
from data_pipeline.shards import TokenShards
from data_pipeline.streams.packing import Packing
from data_pipeline.streams.reading import Reads, token_stream
from data_pipeline.streams.stream import Draws, Stream
from data_pipeline.tokenizers.stored import load_tokenizer
from data_pipeline.tokenizers.tokenizer import Tokenizer


class PreparedText(Config):
    """What all data of token shards have."""

    kind: str
    directory: str
    """Of the token shards, such as data/quickstart."""
    shuffle: bool = True
    """Each epoch has another order of the documents."""
    separate_documents: bool = True
    """No model looks back beyond the start of the document."""
    packing: Packing = "cut"
    """Rows of models that read samples: documents end to end, cut where a row is full, or whole documents that fit."""
    damaged: Literal["stop", "skip"] = "stop"
    """Where a shard lacks a file, or has one of another size or form: refuse to read any, or leave it out. Runs that
    left out different shards read different data, and their fingerprints differ."""
    verify: Literal["sizes", "background"] = "sizes"
    """At a start only sizes are compared; or every file's hash as well, while training goes on. A run whose data turn
    out to be damaged saves and stops."""

    def manifest(self) -> Manifest:
        """Of the shards; BadInput if they are not prepared."""
        return read_manifest(Path(self.directory))

    def shards(self, split: str = "train") -> TokenShards:
        """The tokenized documents of a split."""
        self.manifest()
        return TokenShards.open(Path(self.directory), split, damaged=self.damaged)

    def documents(self, split: str) -> TokenShards:
        """The same, by the name that other kinds of documents have it under."""
        return self.shards(split)

    def splits(self) -> tuple[str, ...]:
        """Which there are."""
        return tuple(self.manifest().splits)

    def load_tokenizer(self) -> Tokenizer:
        """The one that the shards were made with."""
        return load_tokenizer(Path(self.directory), self.manifest().tokenizer_hash)

    def vocab_size(self) -> int:
        """Of the tokenizer that the shards were made with."""
        return self.manifest().vocab_size

    def vocabulary(self) -> str:
        """What tells this tokenizer from all others: its hash."""
        return self.manifest().tokenizer_hash

    def fingerprint(self) -> str:
        """SHA-256 over the tokenizer and every shard that is read."""
        manifest = self.manifest()
        left_out = (
            [] if self.damaged == "stop" else [name for split in manifest.splits for name in self._left_out(split)]
        )
        return manifest.fingerprint_without(left_out)

    def directories(self) -> dict[str, Path]:
        """Of all token shards, each under the name of its source; this has only the one."""
        return {"": Path(self.directory)}

    def left_out(self) -> set[str]:
        """Names of the shards that runs leave out."""
        if self.damaged == "stop":
            return set()
        return {name for split in self.splits() for name in self._left_out(split)}

    def _left_out(self, split: str) -> list[str]:
        return [*self.shards(split).left_out]

    def warnings(self) -> list[str]:
        """What a run's user is to know of its training data: the shards that are left out."""
        return self.shards("train").left_out_lines()

    def stream(
        self,
        *,
        reads: Reads,
        length: int | None,
        micro_batches: int,
        rows: int,
        seed: int,
        split: str = "train",
    ) -> Stream:
        """Lanes or samples of a split's tokens; BadInput if they cannot be read so, are too few, or not prepared."""
        return token_stream(
            self.shards(split),
            kind=self.kind,
            reads=reads,
            length=length,
            draws=Draws(micro_batches=micro_batches, rows=rows, seed=seed),
            shuffle=self.shuffle,
            separate_documents=self.separate_documents,
            packing=self.packing,
        )


class PreparedConfig(PreparedText):
    """Any directory that was prepared before, whatever it was made of."""

    kind: Literal["prepared"]
