"""From a corpus of media to tars: list, convert, and last the manifest.

The same corpus and settings give the same bytes, whatever the executor, the number of workers, and how often it was
interrupted.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from data_pipeline.atomic import write_atomically
from data_pipeline.config import BadInput, Corrupt, Refused
from data_pipeline.manifest import SHARD_FOLDER, check_unchanged
from data_pipeline.media.media_corpus import SPLITS, MediaCorpus
from data_pipeline.media.media_manifest import (
    FORMAT_VERSION,
    MANIFEST_FILE,
    MediaManifest,
    MediaSplitRecord,
    read_media_manifest,
)
from data_pipeline.media.media_pieces import AnyConverter, Converted, MediaTask, convert_piece
from data_pipeline.prepare.executor import Executor
from data_pipeline.prepare.pieces import WORK_FOLDER
from data_pipeline.prepare.progress import Progress

Listener = Callable[[Progress], None]


class Preparable(Protocol):
    """What a data kind of media says of its directory."""

    @property
    def directory(self) -> str: ...

    @property
    def corpus(self) -> MediaCorpus: ...

    @property
    def shard_bytes(self) -> int: ...

    def converter(self) -> AnyConverter: ...

    def identity(self) -> dict[str, Any]: ...


def prepare_media(config: Preparable, *, executor: Executor, report: Listener) -> MediaManifest:
    """Makes `config.directory`, or finishes or repairs it; a finished one is left as it is.

    BadInput if the corpus or the directory cannot be used; Refused if the directory was prepared with other settings,
    or finished from other files.
    """
    directory = Path(config.directory).resolve()
    listing = config.corpus.listing()
    finished = _finished(config, directory, listing)
    if finished is not None:
        report(Progress("finished", 1, 1))
        return finished
    pieces = config.corpus.pieces(config.shard_bytes)
    report(Progress("list", len(pieces), len(pieces)))
    _start(directory, config.identity())
    corpus, converter = config.corpus.located(), config.converter()
    tasks = [
        MediaTask(corpus, converter, spans, number, directory, config.shard_bytes, listing)
        for number, spans in enumerate(pieces)
    ]
    converted = _convert(tasks, executor, report)
    _check_no_split_is_empty(config.corpus, converted)
    manifest = MediaManifest(
        format_version=FORMAT_VERSION,
        config=config.identity(),
        listing=listing,
        source=hashlib.sha256("".join(one.content for one in converted).encode()).hexdigest(),
        splits=_splits(converted),
        report=_report(converted),
    )
    write_atomically(directory / MANIFEST_FILE, manifest.model_dump_json(indent=1).encode())
    _sweep(directory, manifest)
    report(Progress("finished", len(pieces), len(pieces)))
    return manifest


def _convert(tasks: Sequence[MediaTask], executor: Executor, report: Listener) -> list[Converted]:
    converted: list[Converted] = []
    items = num_bytes = 0
    for one in executor.map(convert_piece, tasks):
        converted.append(one)
        items, num_bytes = items + one.num_items, num_bytes + one.num_bytes
        report(Progress("encode", len(converted), len(tasks), items, num_bytes))
    return converted


def _finished(config: Preparable, directory: Path, listing: str) -> MediaManifest | None:
    """The manifest of a directory that needs no work; None if there is some to do."""
    if not (directory / MANIFEST_FILE).exists():
        return None
    manifest = read_media_manifest(directory)
    check_unchanged(config.directory, manifest.config, config.identity())
    if manifest.listing != listing:
        raise Refused(
            f"data.directory {config.directory}: was prepared from other files (names or sizes in the corpus, or its "
            "table of labels, have changed); restore the corpus, or choose another data.directory"
        )
    try:
        for split in manifest.splits.values():
            for shard in split.shards:
                shard.check_sizes(directory)
    except Corrupt:
        return None
    return manifest


def _start(directory: Path, identity: dict[str, Any]) -> None:
    """Claims the directory for these settings; Refused if it was begun with others."""
    path = directory / WORK_FOLDER / "started.json"
    try:
        check_unchanged(str(directory), json.loads(path.read_text(encoding="utf-8")), identity)
    except (OSError, json.JSONDecodeError):
        write_atomically(path, json.dumps(identity, indent=1, sort_keys=True).encode())


def _report(converted: Sequence[Converted]) -> dict[str, int]:
    return dict(sorted(sum((Counter(one.report) for one in converted), Counter[str]()).items()))


def _check_no_split_is_empty(corpus: MediaCorpus, converted: Sequence[Converted]) -> None:
    found = {split for one in converted for split, so_far in one.splits.items() if so_far.shards}
    for split in corpus.expected:
        if split not in found:
            mend = "files" if split == "train" else split
            left_out = ", ".join(f"{count} {reason}" for reason, count in _report(converted).items()) or "none"
            raise BadInput(
                f"corpus: no item for the split {split} ({sum(one.num_items for one in converted)} were found, of all "
                f"splits; left out: {left_out}); name more files, or correct corpus.{mend}"
            )


def _splits(converted: Sequence[Converted]) -> dict[str, MediaSplitRecord]:
    shards = {
        split: [shard for one in converted if split in one.splits for shard in one.splits[split].shards]
        for split in SPLITS
    }
    return {split: MediaSplitRecord(shards=tuple(records)) for split, records in shards.items() if records}


def _sweep(directory: Path, manifest: MediaManifest) -> None:
    """Removes what interrupted runs left behind."""
    wanted = {path for path, _ in manifest.files(directory)}
    for path in (directory / SHARD_FOLDER).iterdir():
        if path not in wanted and path.suffix in (".npy", ".tar", ".tmp"):
            path.unlink()
    for folder in (directory, directory / WORK_FOLDER):
        for path in folder.glob("*.tmp"):
            path.unlink()
