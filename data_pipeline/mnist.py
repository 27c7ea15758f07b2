"""MNIST (LeCun et al. 1998) and any other set in its four IDX files, plain or .gz, of a directory of the user's.

The first 50,000 training images are for training and the last 10,000 for validation, as in the literature on
likelihoods (Larochelle & Murray 2011); smaller sets are divided in the same proportion. The test images are the test.

Shape legend: N images, D pixels.
"""

import gzip
import zlib
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from data_pipeline.config import BadInput
from data_pipeline.streams.vectors import Vectors
from data_pipeline.vector_data import Pixels, Values, VectorData, as_pixels

FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
IMAGES, LABELS = 0x803, 0x801
"""Magic numbers: unsigned bytes in three dimensions, or in one."""
KINDS = {IMAGES: "IDX files of images", LABELS: "IDX files of labels"}


class MnistConfig(VectorData):
    """Vectors of the pixels in [0, 1], row by row, with the class as the label."""

    kind: Literal["mnist"]
    directory: str
    """With the four files, or those names with .gz."""
    height: int = Field(default=28, gt=0)
    width: int = Field(default=28, gt=0)
    classes: int = Field(default=10, gt=0)
    pixels: Pixels = "grey"
    pixel_seed: int = 0
    """Of the draw of pixels=sampled."""

    @property
    def shape(self) -> tuple[int, ...]:
        return (1, self.height, self.width)

    @property
    def values(self) -> Values:
        return "levels" if self.pixels == "grey" else "binary"

    @property
    def num_levels(self) -> int | None:
        return 256 if self.pixels == "grey" else 2

    @property
    def num_classes(self) -> int | None:
        return self.classes

    def _vectors(self, split: str) -> Vectors:
        files = FILES["test" if split == "test" else "train"]
        images, labels = self._read(files[0], IMAGES), self._read(files[1], LABELS)
        if images.shape[1:] != (self.height, self.width):
            raise BadInput(
                f"{self.directory}: its images are {images.shape[1]} x {images.shape[2]}, but data.height is "
                f"{self.height} and data.width {self.width}; set them so"
            )
        if len(images) != len(labels):
            raise BadInput(f"{self.directory}: {len(images):,} images but {len(labels):,} labels; get the files again")
        if len(labels) and int(labels.max()) >= self.classes:
            raise BadInput(f"{self.directory}: has the label {int(labels.max())}, but data.classes is {self.classes}")
        chosen = _share(split, len(images))
        bytes_ND = images[chosen].reshape(-1, self.height * self.width)
        vectors = Vectors(bytes_ND, labels[chosen].astype(np.int64), dynamic=self.pixels == "dynamic", most=255)
        if self.pixels in ("grey", "dynamic"):
            return vectors
        return as_pixels(vectors.values, vectors.labels, self.pixels, split=split, seed=self.pixel_seed)

    def _read(self, name: str, magic: int) -> np.ndarray:
        for path in (Path(self.directory) / name, Path(self.directory) / f"{name}.gz"):
            if path.is_file():
                return read_idx(path, magic)
        there = "has no" if Path(self.directory).is_dir() else "is no directory, so has no"
        raise BadInput(
            f"data.directory {self.directory}: {there} {name} (or .gz), one of the four files of MNIST; say where they "
            "are (data.directory=PATH)"
        )


def _share(split: str, count: int) -> slice:
    boundary = count * 5 // 6
    return {"train": slice(boundary), "valid": slice(boundary, count), "test": slice(count)}[split]


def read_idx(path: Path, magic: int) -> np.ndarray:
    """The array of an IDX file of `IMAGES` or `LABELS`; BadInput where it is none, is the other, or is cut off."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise BadInput(f"{path}: cannot be read ({error})") from error
    if content[:4] != magic.to_bytes(4, "big"):
        raise BadInput(
            f"{path}: begins with {content[:4].hex()}, where {KINDS[magic]} begin with {magic:08x}; get it again"
        )
    num_dimensions = magic & 0xFF
    sizes = [int.from_bytes(content[4 * place : 4 * place + 4], "big") for place in range(1, num_dimensions + 1)]
    begin = 4 + 4 * num_dimensions
    if len(content) < begin:
        raise BadInput(f"{path}: is cut off after {len(content)} bytes, within its sizes; get it again")
    found, wanted = len(content) - begin, int(np.prod(sizes, dtype=np.int64))
    if found != wanted:
        raise BadInput(f"{path}: has {found:,} bytes of values, its sizes {sizes} need {wanted:,}; get it again")
    return np.frombuffer(content, np.uint8, offset=begin).reshape(sizes)
