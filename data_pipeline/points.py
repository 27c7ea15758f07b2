"""Points of a plane from distributions whose entropy is known. They need no files.

Eight Gaussians: centres on a circle of `radius`, all equally likely, each of standard deviation `std` in both
directions. Far apart, their mixture's entropy is

    ln 8 + 1 + ln(2 pi std^2)   nats a point,

2.5094 for a std of 0.3. At a radius of 2 they overlap a little, which leaves 2.4795: `entropy` integrates it.

Shape legend: N points, M modes.
"""

from typing import Literal

import numpy as np
from pydantic import Field

from data_pipeline.mixing import keys, mix, uniform
from data_pipeline.streams.vectors import Vectors
from data_pipeline.vector_data import Values, VectorData


class EightGaussiansConfig(VectorData):
    """Points drawn once; the same fields give the same points everywhere. The label is the mode."""

    kind: Literal["eight_gaussians"]
    radius: float = Field(default=2.0, gt=0)
    std: float = Field(default=0.3, gt=0)
    num_points: int = Field(default=20_000, ge=1)
    """Of the split "train"."""
    num_held_out: int = Field(default=5_000, ge=1)
    """Of "valid", and of "test"."""
    point_seed: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        return (2,)

    @property
    def values(self) -> Values:
        return "real"

    @property
    def num_classes(self) -> int | None:
        return 8

    def centres(self) -> np.ndarray:
        """[8, 2] float64."""
        angle_M = np.arange(8) * (np.pi / 4)
        return self.radius * np.stack([np.cos(angle_M), np.sin(angle_M)], axis=1)

    def log_density(self, points_N2: np.ndarray) -> np.ndarray:
        """[N] in nats."""
        square_NM = ((points_N2[:, None] - self.centres()) ** 2).sum(-1)
        log_NM = -square_NM / (2 * self.std**2) - np.log(2 * np.pi * self.std**2) - np.log(8)
        most_N = log_NM.max(1)
        found: np.ndarray = most_N + np.log(np.exp(log_NM - most_N[:, None]).sum(1))
        return found

    def entropy(self) -> float:
        """Nats a point, by a sum over a grid of a twentieth of `std`, eight of them beyond the centres."""
        edge, step = self.radius + 8 * self.std, self.std / 20
        line = np.arange(-edge, edge, step)
        total = 0.0
        for x in line:
            log_N = self.log_density(np.stack([np.full_like(line, x), line], axis=1))
            total -= float((np.exp(log_N) * log_N).sum())
        return total * step**2

    def _vectors(self, split: str) -> Vectors:
        count = self.num_points if split == "train" else self.num_held_out
        places_N3 = np.arange(3 * count, dtype=np.uint64).reshape(count, 3)
        chance_N3 = uniform(mix(places_N3, keys(1, self.point_seed, "eight gaussians", split)[0]))
        mode_N = (chance_N3[:, 0] * 8).astype(np.int64)
        length_N = self.std * np.sqrt(-2 * np.log1p(-chance_N3[:, 1]))  # Box & Muller 1958
        angle_N = 2 * np.pi * chance_N3[:, 2]
        around_N2 = length_N[:, None] * np.stack([np.cos(angle_N), np.sin(angle_N)], axis=1)
        return Vectors((self.centres()[mode_N] + around_N2).astype(np.float32), mode_N)
