"""Whether prepared data are what was written: every file is read, and its hash compared."""

import hashlib
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from data_pipeline.config import Corrupt
from data_pipeline.manifest import FileRecord, Manifest, read_manifest
from data_pipeline.tokenizers.stored import load_tokenizer

BLOCK = 1 << 22
REMEDY = "run `launch.py prepare` again"
REMEDY_OF_CONTENT = "`launch.py data verify --set-aside`, then `launch.py prepare` makes it anew"


@dataclass(frozen=True, slots=True)
class Checked:
    """One file that was read."""

    path: Path
    problem: str | None
    """None: every byte is as it was written."""


def num_bytes(directories: Mapping[str, Path]) -> int:
    """What there is to read."""
    return sum(
        record.num_bytes
        for directory in directories.values()
        for split in read_manifest(directory).splits.values()
        for shard in split.shards
        for record in shard.files.values()
    )


def verify(
    directory: Path, *, leave_out: Container[str] = (), see: Callable[[int], None] = lambda _: None
) -> Iterator[Checked]:
    """Every file of the shards but for those left out (by name), and the tokenizer's; `see` is told of the bytes as
    they are read.

    BadInput if the directory is not prepared.
    """
    manifest = read_manifest(directory)
    yield _tokenizer(directory, manifest)
    for split in manifest.splits.values():
        for shard in (one for one in split.shards if one.name not in leave_out):
            for kind, record in shard.files.items():
                path = shard.path(directory, kind)
                yield Checked(path, problem_of(path, record, see))


def _tokenizer(directory: Path, manifest: Manifest) -> Checked:
    try:
        load_tokenizer(directory, manifest.tokenizer_hash)
    except Corrupt as damage:
        return Checked(directory / "tokenizer.json", str(damage))
    return Checked(directory / "tokenizer.json", None)


def problem_of(path: Path, record: FileRecord, see: Callable[[int], None] = lambda _: None) -> str | None:
    """What is wrong with a file, or None."""
    digest, found = hashlib.sha256(), 0
    try:
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                digest.update(block)
                found += len(block)
                see(len(block))
    except FileNotFoundError:
        return f"{path}: is missing; {REMEDY}"
    except OSError as error:
        return f"{path}: cannot be read ({error.strerror}); {REMEDY}"
    if found != record.num_bytes:
        return f"{path}: has {found} bytes, but {record.num_bytes} were written; {REMEDY}"
    return (
        None
        if digest.hexdigest() == record.sha256
        else f"{path}: its content is not what was written; {REMEDY_OF_CONTENT}"
    )
