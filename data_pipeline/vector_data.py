"""What all data of independent vectors have: images, waves, points."""

import abc
from typing import Literal

import numpy as np

from data_pipeline.config import BadInput, Config
from data_pipeline.sources.document import SPLITS
from data_pipeline.streams.reading import Reads, cannot_be_read, check_split
from data_pipeline.streams.stream import Draws, Stream
from data_pipeline.streams.vectors import Vectors, VectorStream, binary_draw

Values = Literal["binary", "levels", "real"]
"""Zeros and ones; evenly spaced levels from 0 to 1, both included; any number."""
Pixels = Literal["grey", "threshold", "sampled", "dynamic"]
"""Levels as they are; ones above a half; ones drawn once with the level as probability; or drawn anew each epoch."""


class VectorData(Config, abc.ABC):
    """Data sets that fit in memory."""

    kind: str

    def splits(self) -> tuple[str, ...]:
        """Which there are."""
        return SPLITS

    @property
    @abc.abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Of one vector before it is flattened: channels, height, width of an image; channel, samples of a wave."""

    @property
    @abc.abstractmethod
    def values(self) -> Values: ...

    @property
    def num_levels(self) -> int | None:
        """Of values that are levels; 2 of binary ones."""
        return 2 if self.values == "binary" else None

    @property
    def num_classes(self) -> int | None:
        """Labels are 0 .. num_classes - 1; None: there are none."""
        return None

    @property
    def sample_rate(self) -> int | None:
        """Of waves: samples a second."""
        return None

    def vectors(self, split: str) -> Vectors:
        """All of a split; BadInput where there is no such split."""
        check_split(self.kind, split, self.splits())
        return self._vectors(split)

    @abc.abstractmethod
    def _vectors(self, split: str) -> Vectors: ...

    def vocab_size(self) -> int | None:
        """None: not tokens."""

    def fingerprint(self) -> str:
        """SHA-256 over the training split."""
        return self.vectors("train").fingerprint

    def stream(
        self,
        *,
        reads: Reads,
        length: int | None,
        micro_batches: int,
        rows: int,
        seed: int,
        split: str = "train",
    ) -> Stream:
        """Shuffled vectors; BadInput for a model that reads anything else."""
        if reads != "vectors":
            raise cannot_be_read(self.kind, reads, "vectors")
        if length is not None:
            raise BadInput(f"length {length}: data.kind {self.kind} has no segments; leave length out")
        return VectorStream(self.vectors(split), draws=Draws(micro_batches=micro_batches, rows=rows, seed=seed))


def as_pixels(levels_ND: np.ndarray, labels_N: np.ndarray, pixels: Pixels, *, split: str, seed: int) -> Vectors:
    """Images in [0, 1] as `pixels` says; `seed` is of the one draw of `sampled`."""
    labels_N = labels_N.astype(np.int64)
    if pixels == "threshold":
        return Vectors((levels_ND > 0.5).astype(np.float32), labels_N)
    if pixels == "sampled":
        return Vectors(binary_draw(levels_ND, "pixels", split, seed), labels_N)
    return Vectors(levels_ND.astype(np.float32), labels_N, dynamic=pixels == "dynamic")
