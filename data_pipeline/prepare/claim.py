"""A directory to be made belongs to one driver at a time, and to one set of settings."""

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from data_pipeline.atomic import write_atomically
from data_pipeline.config import BadInput, Refused
from data_pipeline.manifest import SHARD_FOLDER, check_unchanged
from data_pipeline.prepare.scanning import WORK_FOLDER, forget_scans
from data_pipeline.steps.cleaning import forget

LOCK_FILE = "lock"
STARTED_FILE = "started.json"


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
    path = directory / WORK_FOLDER / STARTED_FILE
    try:
        check_unchanged(str(directory), json.loads(path.read_text(encoding="utf-8")), identity)
    except Refused:
        if any((directory / SHARD_FOLDER).glob("*.npy")):
            raise
    except (OSError, ValueError):
        pass  # it is not there, or cannot be understood
    else:
        return
    forget_scans(directory)
    forget(directory / WORK_FOLDER)
    write_atomically(path, json.dumps(identity, indent=1, sort_keys=True).encode())
