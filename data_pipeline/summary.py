"""What a prepared directory holds, for people to look at."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from data_pipeline.manifest import read_manifest
from data_pipeline.shards import TokenShards
from data_pipeline.tokenizers.stored import load_tokenizer

SAMPLE_TOKENS = 64


@dataclass(frozen=True, slots=True)
class SplitSummary:
    """One split, and how its first document begins."""

    name: str
    num_shards: int
    num_documents: int
    num_tokens: int
    num_bytes: int
    """Of the documents' text, in UTF-8."""
    sample: str

    @property
    def bytes_per_token(self) -> float:
        """How much the tokenizer compresses, ends of documents included."""
        return self.num_bytes / self.num_tokens

    def __str__(self) -> str:
        return (
            f"{self.name}: {self.num_documents:,} documents, {self.num_tokens:,} tokens, {self.num_bytes:,} bytes "
            f"({self.bytes_per_token:.2f} bytes/token), {self.num_shards} shards"
        )


@dataclass(frozen=True, slots=True)
class Summary:
    """All of a directory, whose files have the right sizes."""

    directory: str
    tokenizer: str
    tokenizer_hash: str
    vocab_size: int
    fingerprint: str
    source: str
    """SHA-256 over the ids and texts of all documents."""
    left_out: dict[str, int]
    """Documents left out or altered, by reason."""
    splits: tuple[SplitSummary, ...]

    def lines(self) -> list[str]:
        """A few for a terminal; of each split one, and its sample."""
        left_out = ", ".join(f"{count:,} {reason}" for reason, count in self.left_out.items()) or "none"
        return [
            f"fingerprint {self.fingerprint}",
            f"tokenizer {self.tokenizer} {self.tokenizer_hash}, vocabulary {self.vocab_size:,}",
            f"documents {self.source}, left out or altered: {left_out}",
        ]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def summarize(directory: Path, *, damaged: Literal["stop", "skip"] = "stop") -> Summary:
    """BadInput if the directory is not prepared; Corrupt if a file's size is not what was written, unless such shards
    are skipped: counts are then those of the manifest."""
    manifest = read_manifest(directory)
    tokenizer = load_tokenizer(directory, manifest.tokenizer_hash)
    splits = [
        SplitSummary(
            name=name,
            num_shards=len(record.shards),
            num_documents=record.num_documents,
            num_tokens=record.num_tokens,
            num_bytes=record.num_bytes,
            sample=tokenizer.decode(_beginning(TokenShards.open(directory, name, damaged=damaged))),
        )
        for name, record in manifest.splits.items()
    ]
    return Summary(
        directory=str(directory),
        tokenizer=tokenizer.kind,
        tokenizer_hash=manifest.tokenizer_hash,
        vocab_size=manifest.vocab_size,
        fingerprint=manifest.fingerprint(),
        source=manifest.source,
        left_out=manifest.report,
        splits=tuple(splits),
    )


def _beginning(shards: TokenShards) -> np.ndarray:
    """Some tokens of the first document, which may be a giant."""
    nothing = np.zeros(1, dtype=np.int64)
    return shards.read(nothing, nothing, np.minimum(shards.lengths[:1], SAMPLE_TOKENS))
