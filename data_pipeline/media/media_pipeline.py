"""From a corpus of media to tars: list, convert, and last the manifest.

The same corpus and settings give the same bytes, whatever the executor, the number of workers, and how often it was
interrupted.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from data_pipeline.atomic import write_atomically
from data_pipeline.config import BadInput, Corrupt
from data_pipeline.media.expected_splits import check_names, remedy
from data_pipeline.media.media_corpus import MediaCorpus
from data_pipeline.media.media_manifest import (
    FORMAT_VERSION,
    MANIFEST_FILE,
    MediaManifest,
    MediaSplitRecord,
    read_media_manifest,
)
from data_pipeline.media.media_pieces import AnyConverter, Converted, MediaTask, convert_piece
from data_pipeline.prepare.directory import check_same, claimed, note_pieces, start, sweep
from data_pipeline.prepare.executor import Executor
from data_pipeline.prepare.left_out import LeftOutFile
from data_pipeline.prepare.progress import Listener, Progress, followed
from data_pipeline.sources.document import SPLITS


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
    or finished from other files, or if another driver works on it.
    """
    directory = Path(config.directory).resolve()
    config.corpus.check_apart(directory)
    listing = config.corpus.listing()
    manifest = _finished(config, directory, listing)
    if manifest is None:
        with claimed(directory):
            manifest = _made(config, directory, listing, executor, report)
    report(Progress("finished", 1, 1))
    return manifest


def _made(config: Preparable, directory: Path, listing: str, executor: Executor, report: Listener) -> MediaManifest:
    pieces = config.corpus.pieces(config.shard_bytes)
    report(Progress("list", len(pieces), len(pieces)))
    check_names(config.corpus, config.converter(), pieces)
    start(directory, config.identity())
    note_pieces(directory, listing, len(pieces), config.corpus.sizes())
    corpus, converter = config.corpus.located(), config.converter()
    tasks = [
        MediaTask(corpus, converter, spans, number, directory, config.shard_bytes, listing)
        for number, spans in enumerate(pieces)
    ]
    converted, left_out = _convert(tasks, executor, report)
    _check_no_split_is_empty(config.corpus, converted, left_out)
    manifest = MediaManifest(
        format_version=FORMAT_VERSION,
        config=config.identity(),
        listing=listing,
        source=hashlib.sha256("".join(one.content for one in converted).encode()).hexdigest(),
        splits=_splits(converted),
        report=_report(converted),
    )
    left_out.write(directory)
    write_atomically(directory / MANIFEST_FILE, manifest.model_dump_json(indent=1).encode())
    sweep(directory, manifest)
    return manifest


def _convert(tasks: Sequence[MediaTask], executor: Executor, report: Listener) -> tuple[list[Converted], LeftOutFile]:
    """What came of each piece, and the names of what was left out, of which no more are held than the file has."""

    def numbers(one: Converted) -> tuple[int, int]:
        return one.num_items, one.num_bytes

    sizes = [sum(span.size for span in task.spans) for task in tasks]
    converted, left_out = [], LeftOutFile()
    for one in followed(executor.map(convert_piece, tasks), "encode", sizes, numbers, report, "items"):
        left_out.add(one.left_out)
        converted.append(one.without_names())
    return converted, left_out


def _finished(config: Preparable, directory: Path, listing: str) -> MediaManifest | None:
    """The manifest of a directory that needs no work; None if there is some to do."""
    if not (directory / MANIFEST_FILE).exists():
        return None
    manifest = read_media_manifest(directory)
    check_same(config.directory, manifest, config.identity(), listing, config.corpus.sizes)
    try:
        manifest.check_sizes(directory)
    except Corrupt:
        return None
    return manifest


def _report(converted: Sequence[Converted]) -> dict[str, int]:
    return dict(sorted(sum((Counter(one.report) for one in converted), Counter[str]()).items()))


def _check_no_split_is_empty(corpus: MediaCorpus, converted: Sequence[Converted], left_out: LeftOutFile) -> None:
    found = {split for one in converted for split, so_far in one.splits.items() if so_far.shards}
    for split in corpus.expected:
        if split not in found:
            raise BadInput(
                f"corpus: no item for the split {split} ({sum(one.num_items for one in converted)} were found, of all "
                f"splits; left out: {left_out.counted(_report(converted))}); {remedy(corpus, split)}"
            )


def _splits(converted: Sequence[Converted]) -> dict[str, MediaSplitRecord]:
    shards = {
        split: [shard for one in converted if split in one.splits for shard in one.splits[split].shards]
        for split in SPLITS
    }
    return {split: MediaSplitRecord(shards=tuple(records)) for split, records in shards.items() if records}
