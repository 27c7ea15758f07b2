"""What a directory of token shards holds: the record that is written last, when everything else is there.

DIRECTORY/manifest.json                          this record
DIRECTORY/tokenizer.json, tokenizer_settings.json
DIRECTORY/shards/NAME.tokens.npy                 [tokens] uint16 or uint32, documents end to end
DIRECTORY/shards/NAME.offsets.npy                [documents + 1] int64, where each document starts, and the end
DIRECTORY/shards/NAME.bytes.npy                  [documents] int64, UTF-8 bytes of each document's text

A document longer than a shard goes on in the next, whose record says that it `continues` it: then the first of its
documents is no new one, and the last of the shard before does not end there.
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from data_pipeline.config import Config, Refused
from data_pipeline.stored_files import SHARD_FOLDER, FileRecord, Sha256, StoredManifest, StoredShard, read_stored

FORMAT_VERSION = 1
MANIFEST_FILE = "manifest.json"
MOST_TOLD = 4
"""Of what differs, in one message."""
MOST_CHARACTERS = 80
"""Of one value in it."""

FileKind = Literal["tokens", "offsets", "bytes"]


class ShardRecord(StoredShard):
    """Some consecutive documents of one split."""

    num_tokens: int = Field(gt=0)
    num_documents: int = Field(gt=0)
    num_bytes: int = Field(ge=0)
    """Of the documents' text."""
    files: dict[FileKind, FileRecord]
    continues: bool = Field(default=False, exclude_if=lambda value: not value)
    """The first document is the rest of one that is too long for a shard: of the last in the shard before."""

    def path(self, directory: Path, kind: FileKind) -> Path:
        """Of one of the shard's files."""
        return directory / SHARD_FOLDER / f"{self.name}.{kind}.npy"

    def stored(self, directory: Path) -> Iterator[tuple[Path, FileRecord]]:
        return ((self.path(directory, kind), record) for kind, record in self.files.items())


class SplitRecord(Config):
    """The shards of a split, in the corpus's order."""

    shards: tuple[ShardRecord, ...] = Field(min_length=1)

    @property
    def num_tokens(self) -> int:
        """Ends of documents included."""
        return sum(shard.num_tokens for shard in self.shards)

    @property
    def num_documents(self) -> int:
        """Of all shards."""
        return sum(shard.num_documents - shard.continues for shard in self.shards)

    @property
    def num_bytes(self) -> int:
        """Of the documents' text, in UTF-8."""
        return sum(shard.num_bytes for shard in self.shards)


class Manifest(StoredManifest):
    """A finished directory."""

    tokenizer_hash: Sha256
    vocab_size: int = Field(gt=0)
    splits: dict[str, SplitRecord] = Field(min_length=1)
    report: dict[str, int]
    """How many documents were left out or altered, by reason."""

    def shards(self) -> Iterator[ShardRecord]:
        return (shard for split in self.splits.values() for shard in split.shards)

    def fingerprint(self, *splits: str) -> str:
        """SHA-256 over the tokenizer's hash and those of all files of the splits (none named: of all)."""
        digest = hashlib.sha256(self.tokenizer_hash.encode())
        for split in splits or sorted(self.splits):
            for shard in self.splits[split].shards:
                digest.update("".join(shard.files[kind].sha256 for kind in ("tokens", "offsets", "bytes")).encode())
        return digest.hexdigest()

    def fingerprint_without(self, left_out: Sequence[str], *splits: str) -> str:
        """Of what is read where shards are left out, which are named; without such the one of all."""
        whole = self.fingerprint(*splits)
        return hashlib.sha256(" without ".join([whole, *left_out]).encode()).hexdigest() if left_out else whole


def read_manifest(directory: Path) -> Manifest:
    """BadInput if the directory holds no finished shards; Corrupt if the record cannot be understood."""
    return read_stored(directory / MANIFEST_FILE, Manifest, version=FORMAT_VERSION, what="data")


def check_unchanged(directory: str, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Refused, naming the first fields with both values, if a directory's shards were prepared with other settings."""
    found = changes(before, now)
    if found:
        raise Refused(
            f"data.directory {directory}: was prepared with other settings ({first_few(found)}); restore them, or "
            "choose another data.directory and run `launch.py prepare`"
        )


def changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """`KEY: BEFORE -> NOW` of each setting that differs, kinds first; of what is of another kind nothing else."""
    kinds = [settings.get("kind", "text") for settings in (before, now)]
    if kinds[0] != kinds[1]:
        return [f"data.kind: {kinds[0]} -> {kinds[1]}"]
    old, new = _flat(before), _flat(now)
    names = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    others = tuple(name.removesuffix("kind") for name in names if name.endswith(".kind"))
    told = [f"{other}kind" for other in others] + [name for name in names if not name.startswith(others)]
    return [f"data.{name}: {_short(old.get(name, '(absent)'))} -> {_short(new.get(name, '(absent)'))}" for name in told]


def first_few(found: Sequence[str]) -> str:
    """
    >>> first_few(["a", "b", "c", "d", "e", "f"])
    'a; b; c; d; and 2 more'
    """
    more = [f"and {len(found) - MOST_TOLD} more"] if len(found) > MOST_TOLD else []
    return "; ".join([*found[:MOST_TOLD], *more])


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= MOST_CHARACTERS else f"{text[: MOST_CHARACTERS - 3]}..."


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for name, value in tree.items():
        leaves |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return leaves
