"""Data of kind `text`: a corpus, a tokenizer, and the directory of shards that `launch.py prepare` makes of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from data_pipeline.config import Config
from data_pipeline.manifest import Manifest, check_unchanged, read_manifest
from data_pipeline.shards import TokenShards
from data_pipeline.sources import Corpus
from data_pipeline.steps import Step
from data_pipeline.steps.cleaning import identity_of
from data_pipeline.streams.reading import Reads, token_stream
from data_pipeline.streams.stream import Draws, Stream
from data_pipeline.tokenizers import TokenizerConfig
from data_pipeline.tokenizers.stored import load_tokenizer
from data_pipeline.tokenizers.tokenizer import Tokenizer


class TextConfig(Config):
    """Which text, how it is tokenized, where the shards are, and how a run reads them."""

    kind: Literal["text"]
    directory: str
    """Of the token shards, such as data/quickstart."""
    corpus: Corpus
    steps: list[Step] = Field(default=[])
    """What cleans the documents, in this order."""
    tokenizer: TokenizerConfig
    shard_bytes: int = Field(default=1 << 23, ge=1)
    """Text in one shard, and in one piece of work: some 2**28 for a corpus of terabytes. A larger document has a shard
    of its own."""
    shuffle: bool = True
    """Each epoch has another order of the documents."""
    separate_documents: bool = True
    """No model looks back beyond the start of the document."""

    def identity(self) -> dict[str, Any]:
        """What decides the shards' bytes, but for where the corpus and GPT-2's files lie."""
        fields = self.model_dump(mode="json", include={"corpus", "tokenizer", "shard_bytes"})
        fields["corpus"].pop("directory", None)
        if self.steps:
            fields["steps"] = identity_of(self.steps)
        if self.tokenizer.kind == "gpt2":
            fields["tokenizer"].pop("path")
        return fields

    def manifest(self) -> Manifest:
        """Of the shards; BadInput if they are not prepared, Refused if they were prepared otherwise."""
        manifest = read_manifest(Path(self.directory))
        check_unchanged(self.directory, manifest.config, self.identity())
        return manifest

    def shards(self, split: str = "train") -> TokenShards:
        """The tokenized documents of a split."""
        self.manifest()
        return TokenShards.open(Path(self.directory), split)

    def evaluation_documents(self, split: str) -> Iterator[tuple[np.ndarray, int]]:
        """Each document's tokens [length] int64, with the end of document, and the bytes of its text."""
        return self.shards(split).documents()

    def load_tokenizer(self) -> Tokenizer:
        """The one that the shards were made with."""
        return load_tokenizer(Path(self.directory), self.manifest().tokenizer_hash)

    def vocab_size(self) -> int:
        """Of the tokenizer that the shards were made with."""
        return self.manifest().vocab_size

    def fingerprint(self) -> str:
        """SHA-256 over the tokenizer and every shard."""
        return self.manifest().fingerprint()

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
        )
