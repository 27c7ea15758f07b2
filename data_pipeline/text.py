"""Data of kind `text`: a corpus, a tokenizer, and the directory of shards that `launch.py prepare` makes of them."""

from typing import Any, Literal

from pydantic import Field

from data_pipeline.manifest import Manifest, check_unchanged
from data_pipeline.prepared_text import PreparedText
from data_pipeline.sources import Corpus
from data_pipeline.steps import Step
from data_pipeline.steps.cleaning import identity_of
from data_pipeline.tokenizers import TokenizerConfig


class TextConfig(PreparedText):
    """Which text, how it is tokenized, where the shards are, and how a run reads them."""

    kind: Literal["text"]
    corpus: Corpus
    steps: list[Step] = Field(default=[])
    """What cleans the documents, in this order."""
    tokenizer: TokenizerConfig
    shard_bytes: int = Field(default=1 << 23, ge=1)
    """Text in one shard, and in one piece of work: some 2**28 for a corpus of terabytes. A larger document has a shard
    of its own."""

    def identity(self) -> dict[str, Any]:
        """What decides the shards' bytes, but for where the corpus and the tokenizer's files lie."""
        fields = self.model_dump(mode="json", include={"corpus", "tokenizer", "shard_bytes"})
        fields["corpus"].pop("directory", None)
        if self.steps:
            fields["steps"] = identity_of(self.steps)
        fields["tokenizer"].pop("path", None)
        return fields

    def manifest(self) -> Manifest:
        """Of the shards; BadInput if they are not prepared, Refused if they were prepared otherwise."""
        manifest = super().manifest()
        check_unchanged(self.directory, manifest.config, self.identity())
        return manifest
