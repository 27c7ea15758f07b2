"""What a worker does with one piece of a corpus of media: convert its items and write their tars.

After each tar it notes how far it is, so that a later run goes on from there, within a large archive too: it reads what
is before that again, and converts none of it.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import Field, ValidationError

from data_pipeline.atomic import write_atomically
from data_pipeline.config import BadInput, Config, Corrupt
from data_pipeline.media.audio import AudioConverter
from data_pipeline.media.images import ImageConverter
from data_pipeline.media.item import Entry, Unfit
from data_pipeline.media.media_corpus import MediaCorpus, Span
from data_pipeline.media.media_manifest import FORMAT_VERSION, MediaShardRecord
from data_pipeline.media.music import MusicConverter
from data_pipeline.media.tar_writer import NO_LABEL, TarWriter
from data_pipeline.prepare.directory import WORK_FOLDER
from data_pipeline.sources.document import LONGEST_NAME, MOST_NAMED, LeftOut, Report, Split

AnyConverter = ImageConverter | AudioConverter | MusicConverter


@dataclass(frozen=True, slots=True)
class MediaTask:
    """What to convert, and where to."""

    corpus: MediaCorpus
    converter: AnyConverter
    spans: tuple[Span, ...]
    number: int
    directory: Path
    shard_bytes: int
    listing: str

    @property
    def key(self) -> str:
        """Of everything that decides the tars, and of when the files were changed."""
        settings = self.corpus.model_dump(mode="json", exclude={"directory"})
        spans = [[span.name, span.start, span.stop, span.changed] for span in self.spans]
        parts = (
            settings,
            self.converter.model_dump(mode="json"),
            spans,
            self.shard_bytes,
            self.listing,
            FORMAT_VERSION,
            MOST_NAMED,
            LONGEST_NAME,
        )
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    @property
    def record_path(self) -> Path:
        return self.directory / WORK_FOLDER / f"piece-{self.number:05d}.json"


class SplitSoFar(Config):
    """The finished tars of one split of a piece."""

    done: int = 0
    """Items of the piece, of all splits, up to which this one is in them."""
    report: dict[str, int] = Field(default={})
    """What was left out among those, by reason."""
    left_out: list[LeftOut] = Field(default=[])
    """The first of each reason."""
    shards: tuple[MediaShardRecord, ...] = ()


class Converted(Config):
    """A piece, as far as it is done."""

    key: str
    finished: bool = False
    content: str = ""
    """SHA-256 over the names and contents of its items."""
    num_items: int = 0
    num_bytes: int = 0
    report: dict[str, int] = Field(default={})
    """Of all splits."""
    outside: list[LeftOut] = Field(default=[])
    """What was left out and has no split: the first of each reason."""
    splits: dict[Split, SplitSoFar] = Field(default={})

    @property
    def shards(self) -> Iterator[MediaShardRecord]:
        """Of all splits."""
        return (shard for split in self.splits.values() for shard in split.shards)

    @property
    def left_out(self) -> Iterator[LeftOut]:
        """The first of each reason: of what has no split, then of each split."""
        yield from self.outside
        for split in self.splits.values():
            yield from split.left_out

    def without_names(self) -> "Converted":
        """All but `left_out`, which may be long."""
        splits = {name: split.model_copy(update={"left_out": []}) for name, split in self.splits.items()}
        return self.model_copy(update={"outside": [], "splits": splits})


def convert_piece(task: MediaTask) -> Converted:
    """Writes the piece's tars, and after each the record of them; what an earlier run finished is kept.

    BadInput for an item that cannot be used, where the recipe says that this ends it.
    """
    kept = _kept(task)
    return kept if kept.finished else _Piece(task, kept).convert()


class _Piece:
    def __init__(self, task: MediaTask, kept: Converted) -> None:
        self._task, self._splits = task, dict(kept.splits)
        self._writers: dict[Split, TarWriter] = {}
        self._reports: dict[Split, Report] = {}

    def convert(self) -> Converted:
        task, digest, num_items, num_bytes = self._task, hashlib.sha256(), 0, 0
        outside = Report()
        for number, entry in enumerate(task.corpus.items(task.spans, task.converter)):
            num_bytes += _digest(digest, entry)
            num_items += 1
            if entry.problem is not None:
                outside.note(self._refused(entry, entry.problem), entry.name)
            else:
                self._add(number, entry)
        for split, writer in self._writers.items():
            self._note(split, num_items, writer.write())
        splits = dict(sorted(self._splits.items()))
        total = sum((Counter(one.report) for one in splits.values()), outside.counts)
        finished = Converted(
            key=task.key,
            finished=True,
            content=digest.hexdigest(),
            num_items=num_items,
            num_bytes=num_bytes,
            report=dict(sorted(total.items())),
            outside=outside.named,
            splits=splits,
        )
        write_atomically(task.record_path, finished.model_dump_json(indent=1).encode())
        return finished

    def _add(self, number: int, entry: Entry) -> None:
        """One item, unless a finished tar has it already."""
        task, split = self._task, self._task.corpus.split_of(entry.name)
        so_far = self._splits.get(split, SplitSoFar())
        if number < so_far.done:
            return
        if split not in self._writers:
            name, first = f"{split}-{task.number:05d}", len(so_far.shards)
            self._writers[split] = TarWriter(task.directory, name, task.shard_bytes, first=first)
            self._reports[split] = Report(Counter(so_far.report), list(so_far.left_out))
        try:
            label, fields = self._label(entry)
            stored = task.converter.convert(entry, task.corpus.caps)
        except Unfit as problem:
            self._reports[split].note(self._refused(entry, problem), entry.name)
            return
        facts: dict[str, object] = {"source": entry.name, **fields, **stored.facts}
        if label != NO_LABEL:
            facts["class"] = label
        written = self._writers[split].add(stored, task.converter.suffix, label, facts)
        if written is not None:
            self._note(split, number, written)
            record = Converted(key=task.key, splits=dict(sorted(self._splits.items())))
            write_atomically(task.record_path, record.model_dump_json(indent=1).encode())

    def _note(self, split: Split, done: int, written: MediaShardRecord | None) -> None:
        shards = self._splits.get(split, SplitSoFar()).shards
        more = () if written is None else (written,)
        report = self._reports[split]
        self._splits[split] = SplitSoFar(
            done=done,
            report=dict(sorted(report.counts.items())),
            left_out=list(report.named),
            shards=(*shards, *more),
        )

    def _label(self, entry: Entry) -> tuple[int, dict[str, str]]:
        """The class's number, and all that is told of the item."""
        corpus = self._task.corpus
        if corpus.labels is None:
            return NO_LABEL, {}
        fields = corpus.labels.fields_of(entry, corpus.directory)
        if not corpus.classes:
            return NO_LABEL, fields
        label = fields.get(corpus.labels.field)
        if label is None:
            raise Unfit("no_label", f"it has no {corpus.labels.field}, but {', '.join(fields) or 'nothing'}")
        if label not in corpus.classes:
            raise Unfit("unknown_label", f"its label {label} is none of corpus.classes")
        return corpus.classes.index(label), fields

    def _refused(self, entry: Entry, problem: Unfit) -> str:
        """The reason to count."""
        if self._task.corpus.broken == "stop" and problem.reason != "other_kind":
            raise BadInput(f"{entry.name}: {problem.reason}: {problem.detail}; repair it, or set corpus.broken to skip")
        return problem.reason


def _digest(digest: "hashlib._Hash", entry: Entry) -> int:
    """Its bytes."""
    data = entry.content if isinstance(entry.content, bytes) else np.ascontiguousarray(entry.content).tobytes()
    digest.update(f"{entry.name}\0{len(data)}\0{json.dumps(entry.fields, sort_keys=True)}\0".encode(errors="replace"))
    digest.update(data)
    return len(data)


def _kept(task: MediaTask) -> Converted:
    """What an earlier run wrote of the same piece, if every byte of it still is as written."""
    nothing = Converted(key=task.key)
    try:
        converted = Converted.model_validate_json(task.record_path.read_bytes())
        for shard in converted.shards:
            shard.check_content(task.directory)
    except (OSError, ValidationError, Corrupt):
        return nothing
    return converted if converted.key == task.key else nothing
