"""A directory while it is prepared: whose it is, of how many pieces, and what may be removed once it is finished."""

import fcntl
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from pydantic import ValidationError

from data_pipeline.atomic import write_atomically
from data_pipeline.config import BadInput, Config, Refused
from data_pipeline.manifest import check_unchanged, first_few
from data_pipeline.stored_files import SHARD_FOLDER, StoredManifest

WORK_FOLDER = "work"
LOCK_FILE = "lock"
LISTING_FILE = "listing.json"
FILES_FILE = "files.json"
STARTED_FILE = "started.json"
ENDINGS = (".npy", ".tar", ".tmp")
"""Of what lies among shards."""

Files = Mapping[str, int]
"""The corpus's, with their sizes, or what tells those."""


class AnySpan(Protocol):
    """Of a corpus of text."""

    @property
    def name(self) -> str: ...

    @property
    def size(self) -> int: ...


class Listing(Config):
    """What a run wrote before it read anything."""

    listing: str
    """As in the manifest."""
    pieces: int


class Known(Config):
    """The files of a listing."""

    listing: str
    files: dict[str, int]


@contextmanager
def claimed(directory: Path) -> Iterator[None]:
    """Refused while another driver has it; BadInput if it cannot be written. The lock ends with its process.

    Without it one driver would sweep away the drafts of another. File systems without locks are taken as they are.
    """
    path = directory / WORK_FOLDER / LOCK_FILE
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open("a")
    except OSError as error:
        raise BadInput(
            f"{path}: cannot be written ({error.strerror}); permit writing, or choose another directory"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused(
                f"data.directory {directory}: another `launch.py prepare` works on it now; wait until that has ended, "
                "or choose another data.directory"
            ) from None
        except OSError:
            pass  # a file system without locks
        yield


def start(directory: Path, identity: dict[str, Any]) -> None:
    """Notes the settings. Refused if the directory has shards that were begun with others; without shards, what was
    found with others is forgotten."""
    work = directory / WORK_FOLDER
    path = work / STARTED_FILE
    try:
        check_unchanged(str(directory), json.loads(path.read_text(encoding="utf-8")), identity)
    except Refused:
        shards = directory / SHARD_FOLDER
        if shards.exists() and any(one.suffix in (".npy", ".tar") for one in shards.iterdir()):
            raise
    except (OSError, ValueError):
        pass  # it is not there, or cannot be understood
    else:
        return
    for found in work.iterdir():
        if found.is_dir():
            shutil.rmtree(found, ignore_errors=True)
        elif found.name.startswith("scan-"):
            found.unlink()
    write_atomically(path, json.dumps(identity, indent=1, sort_keys=True).encode())


def begun_with(directory: Path) -> dict[str, Any] | None:
    """The settings of a directory that is not finished; None where they were not kept."""
    try:
        found = json.loads((directory / WORK_FOLDER / STARTED_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def note_pieces(directory: Path, listing: str, count: int, files: Files) -> None:
    """For who asks how far it is, or which files have changed."""
    content = Listing(listing=listing, pieces=count).model_dump_json().encode()
    write_atomically(directory / WORK_FOLDER / LISTING_FILE, content)
    known = Known(listing=listing, files=dict(files)).model_dump_json().encode()
    write_atomically(directory / WORK_FOLDER / FILES_FILE, known)


def num_pieces(directory: Path) -> int | None:
    """Of the corpus; None where that was not kept."""
    try:
        return Listing.model_validate_json((directory / WORK_FOLDER / LISTING_FILE).read_bytes()).pieces
    except (OSError, ValidationError):
        return None


def check_same(
    directory: str, manifest: StoredManifest, identity: dict[str, Any], listing: str, files: Callable[[], Files]
) -> None:
    """Refused where a finished directory is of other settings or of other files, which `files` gives."""
    check_unchanged(directory, manifest.config, identity)
    if manifest.listing != listing:
        found = _changed_files(directory, manifest, files)
        raise Refused(
            f"data.directory {directory}: was prepared from other files ({found}); restore them, or choose another "
            "data.directory"
        )


def _changed_files(directory: str, manifest: StoredManifest, files: Callable[[], Files]) -> str:
    """The first of them by name, as far as that was kept."""
    beside = "an evaluation file of decontamination, or a table of labels"
    try:
        known = Known.model_validate_json(Path(directory, WORK_FOLDER, FILES_FILE).read_bytes())
    except (OSError, ValidationError):
        known = None
    if known is None or known.listing != manifest.listing:
        return f"names or sizes in the corpus, {beside} have changed"
    old, new = known.files, files()
    found = [
        f"{name} is gone" if name not in new else f"{name} is new" if name not in old else f"{name} has another size"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]
    return first_few(found) or f"{beside} has changed"


def sizes_of(spans: Iterable[AnySpan]) -> dict[str, int]:
    """By name, of the files that spans are of, as far as those tell."""
    sizes = Counter[str]()
    for span in spans:
        sizes[span.name] += span.size
    return dict(sizes)


def sweep(directory: Path, manifest: StoredManifest) -> None:
    """Removes what interrupted runs left behind."""
    wanted = {path for path, _ in manifest.files(directory)}
    for path in (directory / SHARD_FOLDER).iterdir():
        if path not in wanted and path.suffix in ENDINGS:
            path.unlink()
    for folder in (directory, directory / WORK_FOLDER):
        for path in folder.glob("*.tmp"):
            path.unlink()
