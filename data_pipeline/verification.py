"""Whether prepared data are what was written: every file is read, and its hash compared."""

from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from data_pipeline.config import Corrupt
from data_pipeline.manifest import Manifest
from data_pipeline.media.media_manifest import read_any_manifest
from data_pipeline.stored_files import Problem
from data_pipeline.tokenizers.stored import load_tokenizer


@dataclass(frozen=True, slots=True)
class Checked:
    """One file that was read."""

    path: Path
    problem: Problem | None
    """None: every byte is as it was written."""


def num_bytes(directories: Mapping[str, Path]) -> int:
    """What there is to read."""
    return sum(
        record.num_bytes
        for directory in directories.values()
        for _, record in read_any_manifest(directory).files(directory)
    )


def verify(
    directory: Path, *, leave_out: Container[str] = (), see: Callable[[int], None] = lambda _: None
) -> Iterator[Checked]:
    """Every file of the shards but for those left out (by name), of texts the tokenizer's too; `see` is told of the
    bytes as they are read.

    BadInput if the directory is not prepared.
    """
    manifest = read_any_manifest(directory)
    if isinstance(manifest, Manifest):
        yield _tokenizer(directory, manifest)
    for shard in (one for one in manifest.shards() if one.name not in leave_out):
        for path, record in shard.stored(directory):
            yield Checked(path, record.problem(path, see))


def _tokenizer(directory: Path, manifest: Manifest) -> Checked:
    try:
        load_tokenizer(directory, manifest.tokenizer_hash)
    except Corrupt as damage:
        return Checked(directory / "tokenizer.json", Problem("damage", str(damage)))
    return Checked(directory / "tokenizer.json", None)
