"""How far a directory is, told from its files alone."""

import abc
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from data_pipeline.manifest import MANIFEST_FILE, Manifest, changes, first_few, read_manifest
from data_pipeline.media.media_manifest import is_media, read_any_manifest
from data_pipeline.prepare.directory import WORK_FOLDER, begun_with, num_pieces

State = Literal["not begun", "unfinished", "finished"]


@dataclass(frozen=True, slots=True)
class DirectoryStatus(abc.ABC):
    """What is told of every prepared directory, of text or media."""

    directory: str
    state: State
    pieces: int | None = None
    """Of the corpus; None where they were not listed yet, or where that was not kept."""
    other_settings: tuple[str, ...] = ()
    """`KEY: BEFORE -> NOW` of each setting that the directory's are not those asked for: then nothing is counted."""

    def __str__(self) -> str:
        if self.other_settings:
            return f"{self.directory}: {self.state}, of other settings: {first_few(self.other_settings)}"
        counted = "" if self.state == "not begun" else f", {self.counted()}"
        return f"{self.directory}: {self.state}{counted}"

    @abc.abstractmethod
    def counted(self) -> str:
        """What is done, of a directory that was begun."""

    @property
    def of_pieces(self) -> str:
        """To follow a count of pieces."""
        return "" if self.pieces is None else f" of {self.pieces:,}"


@dataclass(frozen=True, slots=True)
class Status(DirectoryStatus):
    """Of a directory of token shards."""

    scanned: int = 0
    """Pieces that were scanned, or encoded without; before the corpus changed, perhaps."""
    tokenizer: bool = False
    """Whether it is there."""
    encoded: int = 0
    documents: int | None = None
    tokens: int | None = None
    """Of all splits, once finished."""

    def counted(self) -> str:
        if self.state == "finished":
            return f"{self.documents:,} documents, {self.tokens:,} tokens"
        tokenizer = "there" if self.tokenizer else "not there yet"
        of = self.of_pieces
        return f"{self.scanned:,}{of} pieces scanned, tokenizer {tokenizer}, {self.encoded:,}{of} encoded"


def status(directory: Path, identity: dict[str, Any]) -> Status:
    """Starts nothing and reads no corpus; Corrupt if a manifest cannot be understood."""
    work = directory / WORK_FOLDER
    state, other = differing(directory, identity)
    if other:
        return Status(str(directory), state, other_settings=other)
    if (directory / MANIFEST_FILE).exists():
        return _finished(directory, read_manifest(directory))
    if not work.is_dir():
        return Status(str(directory), "not begun")
    scanned, encoded = (
        {path.stem.rpartition("-")[2] for path in work.glob(f"{kind}-*.json")} for kind in ("scan", "piece")
    )
    return Status(
        directory=str(directory),
        state="unfinished",
        pieces=num_pieces(directory),
        scanned=len(scanned | encoded),
        tokenizer=(directory / "tokenizer_settings.json").exists(),
        encoded=len(encoded),
    )


def differing(directory: Path, identity: dict[str, Any]) -> tuple[State, tuple[str, ...]]:
    """Whether a directory of text or media is finished, and how the settings that it was begun with differ from these
    (see `changes`)."""
    finished = (directory / MANIFEST_FILE).exists() or is_media(directory)
    before = read_any_manifest(directory).config if finished else begun_with(directory)
    return "finished" if finished else "unfinished", () if before is None else tuple(changes(before, identity))


def _finished(directory: Path, manifest: Manifest) -> Status:
    pieces = num_pieces(directory)
    return Status(
        directory=str(directory),
        state="finished",
        pieces=pieces,
        scanned=pieces or 0,
        tokenizer=True,
        encoded=pieces or 0,
        documents=sum(split.num_documents for split in manifest.splits.values()),
        tokens=sum(split.num_tokens for split in manifest.splits.values()),
    )
