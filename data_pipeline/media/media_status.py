"""How far a directory of media is, told from its files alone."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from data_pipeline.media.media_manifest import is_media, read_media_manifest
from data_pipeline.media.media_pieces import Converted
from data_pipeline.prepare.directory import WORK_FOLDER, num_pieces
from data_pipeline.prepare.status import DirectoryStatus, differing


@dataclass(frozen=True, slots=True)
class MediaStatus(DirectoryStatus):
    """Of a directory of tars."""

    converted: int = 0
    """Pieces that are done."""
    items: int = 0
    """In the tars that are written: of pieces in hand, too."""
    num_bytes: int = 0
    """Of those items."""

    def counted(self) -> str:
        told = f"{self.items:,} items, {self.num_bytes:,} bytes"
        return (
            told if self.state == "finished" else f"{self.converted:,}{self.of_pieces} pieces converted, {told} so far"
        )


def media_status(directory: Path, identity: dict[str, Any]) -> MediaStatus:
    """Starts nothing and reads no corpus; Corrupt if a manifest cannot be understood."""
    work, pieces = directory / WORK_FOLDER, num_pieces(directory)
    state, other = differing(directory, identity)
    if other:
        return MediaStatus(str(directory), state, other_settings=other)
    if is_media(directory):
        shards, state, converted = list(read_media_manifest(directory).shards()), "finished", pieces or 0
    elif work.is_dir():
        records = [record for path in sorted(work.glob("piece-*.json")) if (record := _record(path)) is not None]
        shards, state = [shard for record in records for shard in record.shards], "unfinished"
        converted = sum(record.finished for record in records)
    else:
        return MediaStatus(str(directory), "not begun")
    return MediaStatus(
        directory=str(directory),
        state=state,
        pieces=pieces,
        converted=converted,
        items=sum(shard.num_items for shard in shards),
        num_bytes=sum(shard.num_bytes for shard in shards),
    )


def _record(path: Path) -> Converted | None:
    try:
        return Converted.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
