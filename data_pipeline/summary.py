"""What a prepared directory holds, for people to look at."""

from dataclasses import dataclass
from pathlib import Path

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


@dataclass(frozen=True, slots=True)
class Summary:
    """All of a directory."""

    directory: str
    tokenizer: str
    vocab_size: int
    fingerprint: str
    left_out: dict[str, int]
    """Documents left out or altered, by reason."""
    splits: tuple[SplitSummary, ...]
    verified: bool
    """Whether every file's hash was compared (and found right); otherwise only sizes were."""

    def __str__(self) -> str:
        """A few lines for a terminal."""
        left_out = ", ".join(f"{count} {reason}" for reason, count in self.left_out.items()) or "none"
        lines = [
            f"{self.directory}: tokenizer {self.tokenizer}, vocabulary {self.vocab_size}",
            f"fingerprint {self.fingerprint}",
            f"left out or altered: {left_out}",
            f"files: {'every hash is right' if self.verified else 'sizes are right (hashes not compared)'}",
        ]
        for split in self.splits:
            lines.append(
                f"{split.name}: {split.num_documents:,} documents, {split.num_tokens:,} tokens, "
                f"{split.num_bytes:,} bytes ({split.bytes_per_token:.2f} bytes/token), {split.num_shards} shards"
            )
            lines.append(f"  {split.sample!r}")
        return "\n".join(lines)


def summarize(directory: Path, *, verify: bool = False) -> Summary:
    """BadInput if the directory is not prepared; Corrupt if a file is not what was written."""
    manifest = read_manifest(directory)
    tokenizer = load_tokenizer(directory, manifest.tokenizer_hash)
    splits = []
    for name, record in manifest.splits.items():
        shards = TokenShards.open(directory, name)
        if verify:
            shards.verify()
        splits.append(
            SplitSummary(
                name=name,
                num_shards=len(record.shards),
                num_documents=record.num_documents,
                num_tokens=record.num_tokens,
                num_bytes=record.num_bytes,
                sample=tokenizer.decode(shards.document(0)[:SAMPLE_TOKENS]),
            )
        )
    return Summary(
        directory=str(directory),
        tokenizer=tokenizer.kind,
        vocab_size=manifest.vocab_size,
        fingerprint=manifest.fingerprint(),
        left_out=manifest.report,
        splits=tuple(splits),
        verified=verify,
    )
