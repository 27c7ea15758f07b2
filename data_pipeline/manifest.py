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
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from data_pipeline.atomic import sha256_of
from data_pipeline.config import BadInput, Config, Corrupt, Refused

FORMAT_VERSION = 1
MANIFEST_FILE = "manifest.json"
SHARD_FOLDER = "shards"

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
FileKind = Literal["tokens", "offsets", "bytes"]


class FileRecord(Config):
    """One file as it was written."""

    num_bytes: int = Field(ge=0)
    sha256: Sha256


class ShardRecord(Config):
    """Some consecutive documents of one split."""

    name: str = Field(pattern=r"^[a-z]+-\d{5,}-\d{3,}$")
    """Split, piece of the corpus, part of the piece."""
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

    def check_sizes(self, directory: Path) -> None:
        """Corrupt, naming the file, if one is missing or has another size."""
        for kind, record in self.files.items():
            path = self.path(directory, kind)
            size = path.stat().st_size if path.is_file() else None
            if size != record.num_bytes:
                found = "is missing" if size is None else f"has {size} bytes"
                raise Corrupt(f"{path}: {found}, but {record.num_bytes} were written; run `launch.py prepare` again")

    def check_content(self, directory: Path) -> None:
        """Corrupt, naming the file, if one is not what was written, by every byte."""
        self.check_sizes(directory)
        for kind, record in self.files.items():
            path = self.path(directory, kind)
            if sha256_of(path) != record.sha256:
                raise Corrupt(f"{path}: its content is not what was written; run `launch.py prepare` again")


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


class Manifest(Config):
    """A finished directory."""

    format_version: int
    config: dict[str, Any]
    """What it was prepared with: corpus, steps if there are any, tokenizer, shard_bytes."""
    listing: Sha256
    """Over the names and sizes of the corpus's files."""
    source: Sha256
    """Over the ids and texts of all documents."""
    tokenizer_hash: Sha256
    vocab_size: int = Field(gt=0)
    splits: dict[str, SplitRecord] = Field(min_length=1)
    report: dict[str, int]
    """How many documents were left out or altered, by reason."""

    def fingerprint(self, *splits: str) -> str:
        """SHA-256 over the tokenizer's hash and those of all files of the splits (none named: of all)."""
        digest = hashlib.sha256(self.tokenizer_hash.encode())
        for split in splits or sorted(self.splits):
            for shard in self.splits[split].shards:
                digest.update("".join(shard.files[kind].sha256 for kind in ("tokens", "offsets", "bytes")).encode())
        return digest.hexdigest()


def read_manifest(directory: Path) -> Manifest:
    """BadInput if the directory holds no finished shards; Corrupt if the record cannot be understood."""
    path = directory / MANIFEST_FILE
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BadInput(f"data.directory {directory}: holds no prepared data; run `launch.py prepare` first") from error
    except (OSError, UnicodeDecodeError) as error:
        raise Corrupt(f"{path}: cannot be read ({error}); restore it, or prepare the data anew") from error
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        raise Corrupt(f"{path}: not a manifest ({error}); restore it, or prepare the data anew") from error
    if manifest.format_version != FORMAT_VERSION:
        raise BadInput(
            f"{path}: format_version {manifest.format_version}, but this version of Segue reads {FORMAT_VERSION}; "
            "prepare the data anew in another directory"
        )
    return manifest


def check_unchanged(directory: str, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Refused, naming each field with both values, if a directory's shards were prepared with other settings."""
    old, new = _flat(before), _flat(now)
    changes = [
        f"data.{name}: {old.get(name, '(absent)')} -> {new.get(name, '(absent)')}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]
    if changes:
        raise Refused(
            f"data.directory {directory}: was prepared with other settings ({'; '.join(changes)}); restore them, or "
            "choose another data.directory and run `launch.py prepare`"
        )


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for name, value in tree.items():
        leaves |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return leaves
