"""Images in arrays: IDX files of unsigned bytes, plain or .gz (http://yann.lecun.com/exdb/mnist/), and .npz.

Read row by row in bounded memory; nothing is ever unpickled. Legend: N images, H, W pixels, C channels.
"""

import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from data_pipeline.config import BadInput
from data_pipeline.media.archive_entries import UNREADABLE, opened, unreadable
from data_pipeline.media.item import Caps, Entry, Unfit

ENDINGS = ("-ubyte", "-ubyte.gz", ".idx", ".idx.gz", ".npz")
IMAGE_DIMENSIONS = (3, 4)
MOST_PIECES = 16
"""Of a compressed file, each of which is read from the file's beginning."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What a file says of its array."""

    shape: tuple[int, ...]
    begin: int
    """Bytes before the values."""

    @property
    def row_bytes(self) -> int:
        return math.prod(self.shape[1:])


def is_array(name: str) -> bool:
    """Whether a file's name is that of an array of images."""
    return name.lower().endswith(ENDINGS)


def row_starts(path: Path, array: str, piece_bytes: int, caps: Caps) -> tuple[list[int], int]:
    """The rows at which pieces begin, with the number of all, and the bytes of a row.

    Of a file that cannot be read [0, 1], which the reader tells. BadInput for an array that would have to be unpickled.
    """
    try:
        with _opened(path, array, caps) as (_, layout):
            count, row_bytes = layout.shape[0], layout.row_bytes
    except BadInput:
        raise
    except (Unfit, *UNREADABLE):
        return [0, 1], 1
    step = max(1, piece_bytes // max(1, row_bytes))
    if path.suffix in (".gz", ".npz"):
        step = max(step, -(-count // MOST_PIECES))
    return ([*range(0, count, step), count] if count else [0, 1]), row_bytes


def rows(
    path: Path, name: str, start: int, stop: int, *, array: str, labels: str | None, caps: Caps
) -> Iterator[Entry]:
    """Images [H, W] or [H, W, C] of the rows [start, stop); with their labels, where an .npz's array of them is named
    (an IDX file's lie beside it)."""
    try:
        with _opened(path, array, caps) as (stream, layout):
            known = None if labels is None else _labels(path, labels, layout.shape[0], caps)
            _skip(stream, start * layout.row_bytes)
            for number in range(start, min(stop, layout.shape[0])):
                data = stream.read(layout.row_bytes)
                if len(data) < layout.row_bytes:
                    raise EOFError(f"it ends within row {number} of {layout.shape[0]}")
                image = np.frombuffer(data, np.uint8).reshape(layout.shape[1:])
                yield Entry(f"{name}#{number:06d}", image, {} if known is None else {"label": str(known[number])})
    except Unfit as problem:
        yield Entry(name, problem=problem)
    except BadInput:
        raise
    except UNREADABLE as error:
        yield Entry(name, problem=unreadable(error))


@contextmanager
def _opened(path: Path, array: str, caps: Caps) -> Iterator[tuple[BinaryIO, Layout]]:
    """The stream at the first value of an array of images."""
    with _member(path, array, caps) if path.suffix == ".npz" else _idx(path, caps) as (stream, layout):
        if len(layout.shape) not in IMAGE_DIMENSIONS:
            raise Unfit("wrong_size", f"an array of {len(layout.shape)} dimensions, where images have 3 or 4")
        if math.prod(layout.shape[1:3]) > caps.pixels:
            raise Unfit("too_many_pixels", f"rows of {layout.shape[1]} x {layout.shape[2]} pixels")
        yield stream, layout


@contextmanager
def _idx(path: Path, caps: Caps) -> Iterator[tuple[BinaryIO, Layout]]:
    with opened(path, caps) as stream:
        head = stream.read(4)
        if len(head) < 4:
            raise EOFError("it ends within its header")
        if head[:3] != b"\0\0\x08":
            raise Unfit("broken", f"begins with {head.hex()}, where IDX files of unsigned bytes begin with 000008")
        sizes = stream.read(4 * head[3])
        if len(sizes) < 4 * head[3]:
            raise EOFError("it ends within its sizes")
        shape = tuple(int(size) for size in np.frombuffer(sizes, ">u4"))
        stored, needed = path.stat().st_size, 4 + len(sizes) + math.prod(shape)
        if path.suffix == ".gz" and needed > caps.most_expanded(stored):
            raise Unfit("expands_too_far", f"says that it has {needed:,} bytes, compressed into {stored:,}")
        if path.suffix != ".gz" and needed != stored:
            raise Unfit("cut_off", f"has {stored:,} bytes, its sizes {list(shape)} need {needed:,}")
        yield stream, Layout(shape, 4 + len(sizes))


@contextmanager
def _member(path: Path, array: str, caps: Caps) -> Iterator[tuple[BinaryIO, Layout]]:
    """An array of unsigned bytes in an .npz; BadInput where it is none, which only another recipe can mend."""
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise Unfit("broken", f"no .npz ({error})") from error
    with archive:
        names = archive.namelist()
        if f"{array}.npy" not in names:
            has = ", ".join(sorted(name.removesuffix(".npy") for name in names))
            raise BadInput(f"{path}: has no array {array}, but {has}; name one in corpus.array or corpus.labels.array")
        info = archive.getinfo(f"{array}.npy")
        if info.file_size > caps.most_expanded(info.compress_size):
            raise Unfit("expands_too_far", f"{array} becomes {info.file_size:,} bytes of {info.compress_size:,}")
        try:
            with archive.open(info) as member:
                stream = cast(BinaryIO, member)
                yield stream, _header(path, array, stream, info.file_size)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:  # a wrong checksum, method or password
            raise Unfit("broken", f"{array} cannot be read ({error})") from error


def _header(path: Path, array: str, stream: BinaryIO, file_bytes: int) -> Layout:
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(stream)
    if dtype.hasobject:
        raise BadInput(
            f"{path}: {array} holds Python objects, which would have to be unpickled, which can run any program; "
            "store numbers, or leave the file out"
        )
    if dtype != np.uint8 or fortran:
        raise BadInput(f"{path}: the array {array} is {dtype}{' in Fortran order' * fortran}; store uint8 in C order")
    begin = stream.tell()
    if begin + math.prod(shape) != file_bytes:
        raise Unfit("cut_off", f"{array} has {file_bytes:,} bytes, its shape {list(shape)} needs another number")
    return Layout(tuple(shape), begin)


def _labels(path: Path, array: str, count: int, caps: Caps) -> np.ndarray:
    """[N] whole numbers; BadInput where there are none, or not as many as images."""
    if path.suffix == ".npz":
        place, found = f"{path}: the array {array}", _whole(path, array, caps)
    else:
        beside = path.with_name(path.name.replace("images-idx3", "labels-idx1"))
        if beside == path or not beside.is_file():
            raise BadInput(f"{path}: there is no {beside.name} of its labels beside it, as corpus.labels says")
        with _idx(beside, caps) as (stream, layout):
            place, found = str(beside), np.frombuffer(stream.read(), np.uint8).reshape(layout.shape)
    if found.shape != (count,):
        raise BadInput(f"{place} has the shape {list(found.shape)}, for {count:,} images; get the files again")
    return found


def _whole(path: Path, array: str, caps: Caps) -> np.ndarray:
    """An array of labels; of any numbers, never of objects."""
    with zipfile.ZipFile(path) as archive, np.load(path, allow_pickle=False) as arrays:
        if array not in arrays:
            raise BadInput(f"{path}: has no array {array}; name the one with the labels in corpus.labels.array")
        info = archive.getinfo(f"{array}.npy")
        if info.file_size > caps.most_expanded(info.compress_size):
            raise Unfit("expands_too_far", f"{array} becomes {info.file_size:,} bytes of {info.compress_size:,}")
        try:
            found: np.ndarray = arrays[array]
        except ValueError as error:
            raise BadInput(f"{path}: the array {array} cannot be read ({error}); store whole numbers") from error
    if found.dtype.kind not in "iub":
        raise BadInput(f"{path}: the array {array} is {found.dtype}; store whole numbers")
    return found


def _skip(stream: BinaryIO, count: int) -> None:
    while count:
        data = stream.read(min(count, 1 << 20))
        if not data:
            raise EOFError("it ends before the rows that its header names")
        count -= len(data)
