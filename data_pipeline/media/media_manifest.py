"""What a directory of prepared media holds: the record that is written last, when everything else is there.

DIRECTORY/media.json              this record
DIRECTORY/shards/NAME.tar         items, as WebDataset reads them: KEY.png, .wav, .flac or .npy, and KEY.json
DIRECTORY/shards/NAME.index.npy   [items, 6] int64, see `tar_writer.COLUMNS`
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field

from data_pipeline.config import Config
from data_pipeline.manifest import Manifest, read_manifest
from data_pipeline.stored_files import SHARD_FOLDER, FileRecord, StoredManifest, StoredShard, read_stored

FORMAT_VERSION = 1
MANIFEST_FILE = "media.json"

MediaFileKind = Literal["tar", "index"]
ENDINGS: dict[MediaFileKind, str] = {"tar": ".tar", "index": ".index.npy"}


class MediaShardRecord(StoredShard):
    """Some consecutive items of one split."""

    num_items: int = Field(gt=0)
    length: int = Field(gt=0)
    """Of all items: images, samples or steps."""
    num_bytes: int = Field(gt=0)
    """Of their payloads."""
    files: dict[MediaFileKind, FileRecord]

    def path(self, directory: Path, kind: MediaFileKind) -> Path:
        """Of one of the shard's files."""
        return directory / SHARD_FOLDER / f"{self.name}{ENDINGS[kind]}"

    def stored(self, directory: Path) -> Iterator[tuple[Path, FileRecord]]:
        return ((self.path(directory, kind), record) for kind, record in self.files.items())


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


class MediaManifest(StoredManifest):
    """A finished directory."""

    splits: dict[str, MediaSplitRecord] = Field(min_length=1)
    report: dict[str, int]
    """How many items were left out, by reason."""

    def shards(self) -> Iterator[MediaShardRecord]:
        return (shard for split in self.splits.values() for shard in split.shards)

    def fingerprint(self, *splits: str) -> str:
        """SHA-256 over the hashes of all files of the splits (none named: of all)."""
        digest = hashlib.sha256()
        for split in splits or sorted(self.splits):
            for shard in self.splits[split].shards:
                digest.update("".join(shard.files[kind].sha256 for kind in ENDINGS).encode())
        return digest.hexdigest()


def read_media_manifest(directory: Path) -> MediaManifest:
    """BadInput if the directory holds no finished shards; Corrupt if the record cannot be understood."""
    return read_stored(directory / MANIFEST_FILE, MediaManifest, version=FORMAT_VERSION, what="media")


def is_media(directory: Path) -> bool:
    """Whether a directory is one of prepared media."""
    return (directory / MANIFEST_FILE).is_file()


def read_any_manifest(directory: Path) -> Manifest | MediaManifest:
    """Of token shards or of media, as the above."""
    return read_media_manifest(directory) if is_media(directory) else read_manifest(directory)
