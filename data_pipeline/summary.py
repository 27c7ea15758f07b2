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
    """What is read of one split, and how its first document begins."""

    name: str
    num_shards: int
    num_documents: int
    num_tokens: int
    num_bytes: int
    """Of the documents' text, in UTF-8."""
    sample: str
    shards_left_out: int
    """Damaged ones, whose documents and tokens are not among the above."""
    documents_left_out: int
    tokens_left_out: int

    @property
    def bytes_per_token(self) -> float:
        """How much the tokenizer compresses, ends of documents included."""
        return self.num_bytes / self.num_tokens

    def __str__(self) -> str:
        return (
            f"{self.name}: {self.num_documents:,} documents, {self.num_tokens:,} tokens, {self.num_bytes:,} bytes "
            f"({self.bytes_per_token:.2f} bytes/token), {counted(self.num_shards, 'shard')}{self._left_out()}"
        )

    def _left_out(self) -> str:
        if not self.shards_left_out:
            return ""
        shards, documents = counted(self.shards_left_out, "shard"), counted(self.documents_left_out, "document")
        return f"; besides, left out: {documents}, {self.tokens_left_out:,} tokens, in {shards}"


@dataclass(frozen=True, slots=True)
class Summary:
    """All of a directory, whose files have the right sizes."""

    directory: str
    tokenizer: str
    tokenizer_hash: str
    vocab_size: int
    fingerprint: str
    """Of what is read."""
    fingerprint_of_all: str
    """Of what was prepared; the same where no shard is left out."""
    source: str
    """SHA-256 over the ids and texts of all documents."""
    left_out: dict[str, int]
    """Documents left out or altered, by reason."""
    splits: tuple[SplitSummary, ...]

    def lines(self) -> list[str]:
        """A few for a terminal; of each split one, and its sample."""
        left_out = ", ".join(f"{count:,} {reason}" for reason, count in self.left_out.items()) or "none"
        is_whole = self.fingerprint == self.fingerprint_of_all
        whole = [] if is_whole else [f"fingerprint of all that was prepared {self.fingerprint_of_all}"]
        return [
            f"fingerprint {self.fingerprint}" + ("" if is_whole else ", of what is read"),
            *whole,
            f"tokenizer {self.tokenizer} {self.tokenizer_hash}, vocabulary {self.vocab_size:,}",
            f"documents {self.source}, left out or altered: {left_out}",
        ]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def summarize(directory: Path, *, damaged: Literal["stop", "skip"] = "stop") -> Summary:
    """BadInput if the directory is not prepared; Corrupt if a file's size is not what was written, unless such shards
    are skipped: they are then not counted."""
    manifest = read_manifest(directory)
    tokenizer = load_tokenizer(directory, manifest.tokenizer_hash)
    read = {name: TokenShards.open(directory, name, damaged=damaged) for name in manifest.splits}
    splits = [
        SplitSummary(
            name=name,
            num_shards=len(manifest.splits[name].shards) - len(shards.left_out),
            num_documents=shards.num_documents,
            num_tokens=shards.num_tokens,
            num_bytes=shards.num_bytes,
            sample=tokenizer.decode(_beginning(shards)),
            shards_left_out=len(shards.left_out),
            documents_left_out=manifest.splits[name].num_documents - shards.num_documents,
            tokens_left_out=manifest.splits[name].num_tokens - shards.num_tokens,
        )
        for name, shards in read.items()
    ]
    left_out = [shard for shards in read.values() for shard in shards.left_out]
    return Summary(
        directory=str(directory),
        tokenizer=tokenizer.kind,
        tokenizer_hash=manifest.tokenizer_hash,
        vocab_size=manifest.vocab_size,
        fingerprint=manifest.fingerprint_without(left_out),
        fingerprint_of_all=manifest.fingerprint(),
        source=manifest.source,
        left_out=manifest.report,
        splits=tuple(splits),
    )


def counted(number: int, name: str) -> str:
    """
    >>> counted(1, "shard"), counted(2000, "shard")
    ('1 shard', '2,000 shards')
    """
    return f"{number:,} {name}{'' if number == 1 else 's'}"


def _beginning(shards: TokenShards) -> np.ndarray:
    """Some tokens of the first document, which may be a giant."""
    nothing = np.zeros(1, dtype=np.int64)
    return shards.read(nothing, nothing, np.minimum(shards.lengths[:1], SAMPLE_TOKENS))
