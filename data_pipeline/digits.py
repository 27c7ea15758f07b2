"""The 1797 handwritten digits of 8 x 8 pixels that come with scikit-learn (UCI "Optical recognition", test part).

In the order of numpy's `default_rng(0).permutation`, 1,200 are for training, 297 for validation and 300 for tests.
"""

from typing import Literal

import numpy as np

from data_pipeline.streams.vectors import Vectors
from data_pipeline.vector_data import Pixels, Values, VectorData, as_pixels

BOUNDS = {"train": (0, 1200), "valid": (1200, 1497), "test": (1497, 1797)}
LEVELS = 17


class DigitsConfig(VectorData):
    """Vectors of 64 pixels in [0, 1], row by row, with the digit as the label."""

    kind: Literal["digits"]
    pixels: Pixels = "grey"
    """Of 17 levels; `threshold` makes those above 8 of 16 ones."""
    pixel_seed: int = 0
    """Of the draw of pixels=sampled."""

    @property
    def shape(self) -> tuple[int, ...]:
        return (1, 8, 8)

    @property
    def values(self) -> Values:
        return "levels" if self.pixels == "grey" else "binary"

    @property
    def num_levels(self) -> int | None:
        return LEVELS if self.pixels == "grey" else 2

    @property
    def num_classes(self) -> int | None:
        return 10

    def _vectors(self, split: str) -> Vectors:
        from sklearn.datasets import load_digits  # slow to import, needed by few

        values_ND, labels_N = load_digits(return_X_y=True)
        order_N = np.random.default_rng(0).permutation(len(labels_N))[slice(*BOUNDS[split])]
        levels_ND = (values_ND[order_N] / (LEVELS - 1)).astype(np.float32)
        return as_pixels(levels_ND, labels_N[order_N], self.pixels, split=split, seed=self.pixel_seed)
