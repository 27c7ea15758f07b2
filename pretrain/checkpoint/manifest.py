"""What a checkpoint holds and where: `manifest.json`, written last, so that a checkpoint with one is finished.

A tensor's pieces are rows `[worker, start, count, hash]`: elements `start : start + count` of the flattened tensor are
in that worker's file, under the key `name|start`. A thousand workers have 50,000 rows, so they stay rows.
"""

import math
import platform
from collections.abc import Iterable, Mapping
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import Field, JsonValue, NonNegativeInt, PositiveInt, StringConstraints, ValidationError

from data_pipeline.config import BadInput, Config, Corrupt
from pretrain.checkpoint.dtypes import DTYPES, DTypeName
from pretrain.checkpoint.layout import MANIFEST, WORKER_FILE_PATTERN, place_of, worker_file
from pretrain.checkpoint.sealed import seal, unseal

FORMAT = 1
TENSOR_NAME_PATTERN = r"^[A-Za-z0-9_./-]+$"

TensorName = Annotated[str, StringConstraints(pattern=TENSOR_NAME_PATTERN)]
WorkerFile = Annotated[str, StringConstraints(pattern=WORKER_FILE_PATTERN)]
"""A name in the checkpoint's own directory and nowhere else."""


class Description(Config):
    """All that a checkpoint says besides its tensors; the leader's is saved."""

    counters: dict[str, int] = Field(default_factory=dict)
    """Positions that count up: steps, epochs, rows, tokens."""
    scalars: dict[str, int | float] = Field(default_factory=dict)
    """Single numbers of the optimizer and the loss scaler, which are no tensors."""
    experiment: dict[str, JsonValue] = Field(default_factory=dict)
    """The resolved experiment."""
    data_fingerprint: dict[str, str | int] = Field(default_factory=dict)
    """What the stream of batches depends on, by name."""
    probe: dict[str, JsonValue] = Field(default_factory=dict)
    """A stored micro-batch and its loss, by which a loaded checkpoint is known to be the saved one."""
    skipped: list[tuple[NonNegativeInt, NonNegativeInt]] = Field(default_factory=list)
    """[first, last] draws that the run leaves out."""
    losses: dict[str, list[float]] = Field(default_factory=dict)
    """The last finite losses by player, exact in every bit; what the next ones are compared with."""


class StoredPiece(NamedTuple):
    """One row: elements `start : start + count` of a flattened tensor, in one worker's file."""

    worker: int
    start: int
    count: int  # type: ignore[assignment]  # what a tuple has of this name is not used
    hash: str
    """Of the elements' bytes."""

    @property
    def file(self) -> str:
        """A name in the checkpoint's own directory and nowhere else."""
        return worker_file(self.worker)

    @property
    def end(self) -> int:
        return self.start + self.count


Row = tuple[
    NonNegativeInt, NonNegativeInt, PositiveInt, Annotated[str, StringConstraints(min_length=32, max_length=32)]
]


class StoredTensor(Config):
    """A whole tensor: its rows, in order, cover its flat range exactly."""

    shape: tuple[NonNegativeInt, ...]
    dtype: DTypeName
    rows: tuple[Row, ...]

    @cached_property
    def pieces(self) -> tuple[StoredPiece, ...]:
        """The rows with names."""
        return tuple(StoredPiece(*row) for row in self.rows)

    @property
    def count(self) -> int:
        """How many elements it has."""
        return math.prod(self.shape)

    @property
    def num_bytes(self) -> int:
        return self.count * DTYPES[self.dtype].itemsize


class Manifest(Description):
    """The table of contents of one checkpoint: its description, and where its tensors lie."""

    format: Literal[1] = 1
    hashes: Literal["xxh3-128"] = "xxh3-128"
    step: NonNegativeInt
    temporary: bool
    """Whether it goes once a newer checkpoint is complete."""
    course: NonNegativeInt = 0
    """How often the run had gone back before: of a higher one is whatever came after that."""
    created: str
    """UTC, ISO 8601; to be read by people: nothing is ordered by it, for clocks differ."""
    num_workers: PositiveInt
    versions: dict[str, str]
    files: dict[WorkerFile, NonNegativeInt]
    """The length of each worker's file in bytes."""
    tensors: dict[TensorName, StoredTensor]

    @classmethod
    def read(cls, directory: Path) -> Self:
        """Of the checkpoint in the directory; raises Corrupt, naming file and tensor, unless it is sound in itself,
        and BadInput where it is of another format."""
        path = directory / MANIFEST
        values = unseal(path)
        if values.get("format") != FORMAT:
            raise BadInput(f"{path}: format={values.get('format')}, but this version reads only format {FORMAT}")
        try:
            manifest = cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            raise Corrupt(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
        problems = tiling_problems(manifest.tensors, manifest.files)
        place = place_of(directory.name)
        if place is not None and place.step != manifest.step:
            problems.append(f"step={manifest.step}, which is not the directory's")
        if problems:
            raise Corrupt(f"{path}: {'; '.join(problems)}")
        return manifest

    def encode(self) -> bytes:
        """The bytes of the file; raises ValueError where the metadata holds a NaN or an infinity."""
        return seal({"format": self.format, **self.model_dump()})

    def file_problems(self, directory: Path) -> dict[str, str]:
        """What is wrong with which worker's file, as far as one sees without reading it."""
        problems = {}
        for name, length in self.files.items():
            try:
                found = (directory / name).stat().st_size
            except OSError as error:
                problems[name] = f"{directory / name}: {error.strerror}"
                continue
            if found != length:
                problems[name] = f"{directory / name}: {found} bytes long, but {length} were written"
        return problems


def read_complete(directory: Path) -> Manifest:
    """The manifest of a checkpoint of which every file is there, in full length; raises Corrupt otherwise."""
    manifest = Manifest.read(directory)
    problems = manifest.file_problems(directory)
    if problems:
        raise Corrupt("; ".join(problems.values()))
    return manifest


def course_of(directory: Path) -> int:
    """The course of a checkpoint; 0 where its manifest cannot be read, for then it is of no use to anybody."""
    try:
        course = unseal(directory / MANIFEST).get("course", 0)
    except Corrupt:
        return 0
    return course if isinstance(course, int) else 0


def tiling_problems(tensors: Mapping[str, StoredTensor], files: Iterable[str]) -> list[str]:
    """Where pieces leave a gap, overlap, or lie in a file that is none of the checkpoint's."""
    known = set(files)
    workers = {row[0] for tensor in tensors.values() for row in tensor.rows}
    unknown = {worker for worker in workers if worker_file(worker) not in known}
    problems = []
    for name, tensor in tensors.items():
        if unknown:
            problems += [
                f"piece {piece_key(name, piece.start)} is in {piece.file}, which is not in the list of files"
                for piece in tensor.pieces
                if piece.worker in unknown
            ]
        end = 0
        for number, (_, start, count, _) in enumerate(tensor.rows):
            if start != end:
                problems.append(_misfit(name, tensor, number, end))
            end = start + count
        if end != tensor.count:
            problems.append(_misfit(name, tensor, len(tensor.rows), end))
    return problems


def _misfit(name: str, tensor: StoredTensor, number: int, end: int) -> str:
    """What is wrong between the piece before `number`, which goes on to element `end`, and what comes after it."""
    where = ["the start", *(f"{piece_key(name, piece.start)} in {piece.file}" for piece in tensor.pieces), "the end"]
    left, right = where[number], where[number + 1]
    following = tensor.pieces[number].start if number < len(tensor.pieces) else tensor.count
    if end < following:
        return f"{name}: no piece has elements {end}:{following}, between {left} and {right}"
    if right == "the end":
        return f"{name}: {left} goes on to element {end}, but the tensor has only {following}"
    return f"{name}: elements {following}:{end} are in {left} and again in {right}"


def piece_key(name: str, start: int) -> str:
    """What a piece is called in its file."""
    return f"{name}|{start}"


def versions() -> dict[str, str]:
    """Of what computes and stores a run, as far as it is installed."""
    found = {"python": platform.python_version()}
    for package in ("torch", "deepspeed", "safetensors", "triton", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
