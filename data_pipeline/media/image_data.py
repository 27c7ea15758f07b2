"""Data of kind `images`: prepared PNGs, flattened channel by channel and row by row.

Legend: R images of a batch, D values of one.
"""

from typing import Literal

import numpy as np
from pydantic import Field

from data_pipeline.media.images import Fit, ImageConverter, decode_png
from data_pipeline.media.media_data import MediaData
from data_pipeline.media.media_rows import media_vectors
from data_pipeline.media.media_shards import MediaShards
from data_pipeline.streams.vectors import Vectors, binary_draw
from data_pipeline.vector_data import Pixels, Values

LEVELS = 256


class ImagesConfig(MediaData):
    """Vectors of the pixels in [0, 1], with the class as the label."""

    kind: Literal["images"]
    height: int = Field(gt=0)
    width: int = Field(gt=0)
    channels: Literal[1, 3] = 1
    fit: Fit = "exact"
    recolour: bool = False
    """Images of other channels are converted, not left out."""
    pixels: Pixels = "grey"
    pixel_seed: int = 0
    """Of the draw of pixels=sampled."""

    def converter(self) -> ImageConverter:
        return ImageConverter(
            height=self.height, width=self.width, channels=self.channels, fit=self.fit, recolour=self.recolour
        )

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.channels, self.height, self.width)

    @property
    def values(self) -> Values:
        return "levels" if self.pixels == "grey" else "binary"

    @property
    def num_levels(self) -> int | None:
        return LEVELS if self.pixels == "grey" else 2

    def _decoded(self, shards: MediaShards, split: str) -> Vectors:
        def decode(item: int, part: int) -> np.ndarray:
            return decode_png(shards.payload(item)).reshape(-1)

        def finish(bytes_RD: np.ndarray, number_R: np.ndarray) -> np.ndarray:
            if self.pixels in ("grey", "dynamic"):
                return bytes_RD
            levels_RD = bytes_RD.astype(np.float32) / np.float32(LEVELS - 1)
            if self.pixels == "threshold":
                return (levels_RD > 0.5).astype(np.float32)
            return binary_draw(levels_RD, "pixels", split, self.pixel_seed, rows=number_R)

        return media_vectors(
            shards,
            np.arange(shards.num_items),
            decode,
            finish,
            num_values=self.channels * self.height * self.width,
            reading=f"images/{self.pixels}/{self.pixel_seed}",
            dynamic=self.pixels == "dynamic",
            most=LEVELS - 1,
        )
