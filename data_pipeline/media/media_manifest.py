"""What a directory of prepared media holds: the record that is written last, when everything else is there.

DIRECTORY/media.json              this record
DIRECTORY/shards/NAME.tar         items, as WebDataset reads them: KEY.png, .wav, .flac or .npy, and KEY.json
DIRECTORY/shards/NAME.index.npy   [items, 6] int64, see `tar_writer.COLUMNS`
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from data_pipeline.config import BadInput, Config, Corrupt
from data_pipeline.manifest import SHARD_FOLDER, FileRecord, Sha256

FORMAT_VERSION = 1
MANIFEST_FILE = "media.json"

MediaFileKind = Literal["tar", "index"]
ENDINGS: dict[MediaFileKind, str] = {"tar": ".tar", "index": ".index.npy"}


class MediaShardRecord(Config):
    """Some consecutive items of one split."""

    name: str = Field(pattern=r"^[a-z]+-\d{5,}-\d{3,}$")
    """Split, piece of the corpus, part of the piece."""
    num_items: int = Field(gt=0)
    length: int = Field(gt=0)
    """Of all items: images, samples or steps."""
    num_bytes: int = Field(gt=0)
    """Of their payloads."""
    files: dict[MediaFileKind, FileRecord]

    def path(self, directory: Path, kind: MediaFileKind) -> Path:
        """Of one of the shard's files."""
        return directory / SHARD_FOLDER / f"{self.name}{ENDINGS[kind]}"

    def check_sizes(self, directory: Path) -> None:
        """Corrupt, naming the file, if one is missing or has another size."""
        for kind, record in self.files.items():
            path = self.path(directory, kind)
            size = path.stat().st_size if path.is_file() else None
            if size != record.num_bytes:
                found = "is missing" if size is None else f"has {size} bytes"
                raise Corrupt(f"{path}: {found}, but {record.num_bytes} were written; run `launch.py prepare` again")


class MediaSplitRecord(Config):
    """The shards of a split, in the corpus's order."""

    shards: tuple[MediaShardRecord, ...] = Field(min_length=1)

    @property
    def num_items(self) -> int:
        return sum(shard.num_items for shard in self.shards)

    @property
    def length(self) -> int:
        """Of all items: images, samples or steps."""
        return sum(shard.length for shard in self.shards)

    @property
    def num_bytes(self) -> int:
        """Of the payloads."""
        return sum(shard.num_bytes for shard in self.shards)


class MediaManifest(Config):
    """A finished directory."""

    format_version: int
    config: dict[str, Any]
    """What it was prepared with: corpus, converter, shard_bytes."""
    listing: Sha256
    """Over the names and sizes of the corpus's files."""
    source: Sha256
    """Over the names and contents of all items."""
    splits: dict[str, MediaSplitRecord] = Field(min_length=1)
    report: dict[str, int]
    """How many items were left out, by reason."""

    def files(self, directory: Path) -> Iterator[tuple[Path, FileRecord]]:
        """Every file of the shards, and what was written of it."""
        for split in self.splits.values():
            for shard in split.shards:
                for kind, record in shard.files.items():
                    yield shard.path(directory, kind), record

    def fingerprint(self, *splits: str) -> str:
        """SHA-256 over the hashes of all files of the splits (none named: of all)."""
        digest = hashlib.sha256()
        for split in splits or sorted(self.splits):
            for shard in self.splits[split].shards:
                digest.update("".join(shard.files[kind].sha256 for kind in ENDINGS).encode())
        return digest.hexdigest()


def is_media(directory: Path) -> bool:
    """Whether a directory is one of prepared media."""
    return (directory / MANIFEST_FILE).is_file()


def read_media_manifest(directory: Path) -> MediaManifest:
    """BadInput if the directory holds no finished shards; Corrupt if the record cannot be understood."""
    path = directory / MANIFEST_FILE
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BadInput(f"data.directory {directory}: holds no prepared media; run `launch.py prepare` first") from error
    except (OSError, UnicodeDecodeError) as error:
        raise Corrupt(f"{path}: cannot be read ({error}); restore it, or prepare the data anew") from error
    try:
        manifest = MediaManifest.model_validate_json(text)
    except ValidationError as error:
        raise Corrupt(f"{path}: not a manifest ({error}); restore it, or prepare the data anew") from error
    if manifest.format_version != FORMAT_VERSION:
        raise BadInput(
            f"{path}: format_version {manifest.format_version}, but this version of Segue reads {FORMAT_VERSION}; "
            "prepare the data anew in another directory"
        )
    return manifest
