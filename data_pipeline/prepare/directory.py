"""A directory while it is prepared: whose it is, of how many pieces, and what may be removed once it is finished."""

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from data_pipeline.atomic import write_atomically
from data_pipeline.config import Config, Refused
from data_pipeline.manifest import check_unchanged
from data_pipeline.stored_files import SHARD_FOLDER, StoredManifest

WORK_FOLDER = "work"
LISTING_FILE = "listing.json"
STARTED_FILE = "started.json"
ENDINGS = (".npy", ".tar", ".tmp")
"""Of what lies among shards."""


class Listing(Config):
    """What a run wrote before it read anything."""

    listing: str
    """As in the manifest."""
    pieces: int


def claim(directory: Path, identity: dict[str, Any]) -> None:
    """For these settings; Refused if it was begun with others."""
    path = directory / WORK_FOLDER / STARTED_FILE
    try:
        check_unchanged(str(directory), json.loads(path.read_text(encoding="utf-8")), identity)
    except (OSError, json.JSONDecodeError):
        write_atomically(path, json.dumps(identity, indent=1, sort_keys=True).encode())


def note_pieces(directory: Path, listing: str, count: int) -> None:
    """For who asks how far it is."""
    content = Listing(listing=listing, pieces=count).model_dump_json().encode()
    write_atomically(directory / WORK_FOLDER / LISTING_FILE, content)


def num_pieces(directory: Path) -> int | None:
    """Of the corpus; None where that was not kept."""
    try:
        return Listing.model_validate_json((directory / WORK_FOLDER / LISTING_FILE).read_bytes()).pieces
    except (OSError, ValidationError):
        return None


def check_same(directory: str, manifest: StoredManifest, identity: dict[str, Any], listing: str) -> None:
    """Refused where a finished directory is of other settings or of other files."""
    check_unchanged(directory, manifest.config, identity)
    if manifest.listing != listing:
        raise Refused(
            f"data.directory {directory}: was prepared from other files (names, sizes or tables of labels in the "
            "corpus have changed); restore the corpus, or choose another data.directory"
        )


def sweep(directory: Path, manifest: StoredManifest) -> None:
    """Removes what interrupted runs left behind."""
    wanted = {path for path, _ in manifest.files(directory)}
    for path in (directory / SHARD_FOLDER).iterdir():
        if path not in wanted and path.suffix in ENDINGS:
            path.unlink()
    for folder in (directory, directory / WORK_FOLDER):
        for path in folder.glob("*.tmp"):
            path.unlink()
