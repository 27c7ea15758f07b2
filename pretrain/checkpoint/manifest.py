"""What a checkpoint holds and where: `manifest.json`, written last, so that a checkpoint with one is finished."""

import math
import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, NonNegativeInt, PositiveInt, StringConstraints, ValidationError

from data_pipeline.config import BadInput, Config, Corrupt
from pretrain.checkpoint.dtypes import DTYPES, DTypeName
from pretrain.checkpoint.layout import MANIFEST, WORKER_FILE_PATTERN, place_of
from pretrain.checkpoint.sealed import HASH_PATTERN, seal, unseal

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


class StoredPiece(Config):
    """Elements `start : start + count` of a flattened tensor, in one worker's file under the key `name|start`."""

    file: WorkerFile
    start: NonNegativeInt
    count: PositiveInt
    hash: Annotated[str, StringConstraints(pattern=HASH_PATTERN)]
    """Of the elements' bytes."""

    @property
    def end(self) -> int:
        return self.start + self.count


class StoredTensor(Config):
    """A whole tensor: its pieces, in order, cover its flat range exactly."""

    shape: tuple[NonNegativeInt, ...]
    dtype: DTypeName
    pieces: tuple[StoredPiece, ...]

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
        return seal(self.model_dump())

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


def tiling_problems(tensors: Mapping[str, StoredTensor], files: Iterable[str]) -> list[str]:
    """Where pieces leave a gap, overlap, or lie in a file that is none of the checkpoint's."""
    known = set(files)
    problems = []
    for name, tensor in tensors.items():
        problems += [
            f"piece {piece_key(name, piece.start)} is in {piece.file}, which is not in the list of files"
            for piece in tensor.pieces
            if piece.file not in known
        ]
        bounds = [(0, 0), *((piece.start, piece.end) for piece in tensor.pieces), (tensor.count, tensor.count)]
        where = ["the start", *(f"{piece_key(name, p.start)} in {p.file}" for p in tensor.pieces), "the end"]
        for ((_, before), (after, _)), (left, right) in zip(pairwise(bounds), pairwise(where), strict=True):
            if before < after:
                problems.append(f"{name}: no piece has elements {before}:{after}, between {left} and {right}")
            elif before > after and right == "the end":
                problems.append(f"{name}: {left} goes on to element {before}, but the tensor has only {after}")
            elif before > after:
                problems.append(f"{name}: elements {after}:{before} are in {left} and again in {right}")
    return problems


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
