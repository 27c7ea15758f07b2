"""What the shards of texts and media were when a run last started, and which of their files are not the same any more.

A file whose size and time stamp are those of the record is taken to be the same (the stamps are compared with each
other, never with a clock); every other one is read, and its hash decides.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from data_pipeline.atomic import sha256_of, write_atomically
from data_pipeline.config import Config, Corrupt
from data_pipeline.manifest import Manifest
from data_pipeline.media.media_manifest import read_any_manifest
from data_pipeline.stored_files import FileRecord, first_problem

RECORD = "data.json"


class FileStamp(Config):
    """One file of the shards."""

    sha256: str
    num_bytes: int
    modified_ns: int
    """As the file system says."""


class ShardStamps(Config):
    """All that a run reads of a prepared directory."""

    tokenizer: str
    """Its hash; empty where there is none."""
    files: dict[str, FileStamp] = Field(default_factory=dict)
    """By the path below the directory, behind the source's name where data have several."""

    @classmethod
    def take(cls, directories: Mapping[str, Path], known: "ShardStamps | None" = None) -> "ShardStamps":
        """Of the directories as they are, by the names of their sources; the files that are not there are left out.

        Without `known`, the manifests are believed where the sizes are as they say.
        """
        found, tokenizers = dict[str, FileStamp](), dict[str, None]()
        for source, directory in directories.items():
            manifest = read_any_manifest(directory)
            if isinstance(manifest, Manifest):
                tokenizers[manifest.tokenizer_hash] = None
            for path, written in manifest.files(Path()):
                name = f"{source}/{path}" if source else str(path)
                stamp = _stamp(directory / path, name, written, known)
                if stamp is not None:
                    found[name] = stamp
        return cls(tokenizer=" ".join(tokenizers), files=found)

    @classmethod
    def read(cls, run: Path) -> "ShardStamps | None":
        """The run's record, or None where it has none; raises Corrupt where it cannot be understood."""
        path = run / RECORD
        if not path.is_file():
            return None
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            said = first_problem(error) if isinstance(error, ValidationError) else error
            raise Corrupt(f"{path}: cannot be understood ({said}); remove it to go on without this check") from error

    def write(self, run: Path) -> None:
        write_atomically(run / RECORD, (self.model_dump_json(indent=1) + "\n").encode())

    def hashes(self) -> dict[str, Any]:
        """What makes two of them the same, under the names that a refusal shows and `--allow data` allows."""
        files = {name.replace(".", "_"): stamp.sha256 for name, stamp in self.files.items()}
        return {"data": {"tokenizer": self.tokenizer, **files}}


def _stamp(path: Path, name: str, written: FileRecord, known: ShardStamps | None) -> FileStamp | None:
    try:
        status = path.stat()
    except OSError:
        return None
    before = known.files.get(name) if known else None
    same = before is not None and (before.num_bytes, before.modified_ns) == (status.st_size, status.st_mtime_ns)
    if before is not None and same:
        sha256 = before.sha256
    elif known is None and status.st_size == written.num_bytes:
        sha256 = written.sha256
    else:
        sha256 = sha256_of(path)
    return FileStamp(sha256=sha256, num_bytes=status.st_size, modified_ns=status.st_mtime_ns)
