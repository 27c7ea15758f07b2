"""Waves whose entropy is known: damped oscillations that noise keeps going, in a few levels. They need no files.

With levels from -1 to 1 and a voice's period P, a sample is a logistic number (of scale `noise`) around

    2 r cos(2 pi / P) x_(t-1) - r^2 x_(t-2),    r = `damping`, x = 0 before the beginning,

put into the nearest level. So the entropy of a wave is a sum over t of what two samples leave open, and the
distribution of pairs of samples follows step by step from the beginning.

Shape legend: N waves, T samples, L levels, V voices.
"""

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from data_pipeline.mixing import keys, mix, uniform
from data_pipeline.streams.vectors import Vectors
from data_pipeline.vector_data import Values, VectorData


class WavesConfig(VectorData):
    """Waves drawn once; the same fields give the same waves everywhere. The label is the voice."""

    kind: Literal["waves"]
    levels: int = Field(default=16, ge=2)
    length: int = Field(default=64, ge=2)
    """Samples of a wave."""
    periods: tuple[Annotated[float, Field(gt=0)], ...] = Field(default=(6.0, 11.0), min_length=1)
    """Samples of an oscillation, by voice."""
    damping: float = Field(default=0.95, gt=0, lt=1)
    noise: float = Field(default=0.08, gt=0)
    num_waves: int = Field(default=4000, ge=1)
    """Of the split "train"."""
    num_held_out: int = Field(default=1000, ge=1)
    """Of "valid", and of "test"."""
    wave_seed: int = 0
    rate: int = Field(default=8000, gt=0)
    """Samples a second, to hear and see waves by."""

    @property
    def shape(self) -> tuple[int, ...]:
        return (1, self.length)

    @property
    def values(self) -> Values:
        return "levels"

    @property
    def num_levels(self) -> int | None:
        return self.levels

    @property
    def num_classes(self) -> int | None:
        return len(self.periods)

    @property
    def sample_rate(self) -> int | None:
        return self.rate

    def chances(self, voice: int, before_N: np.ndarray, earlier_N: np.ndarray) -> np.ndarray:
        """[N, L] of the next level, given the last two samples (from -1 to 1)."""
        turn = 2 * self.damping * np.cos(2 * np.pi / self.periods[voice])
        mean_N = turn * before_N - self.damping**2 * earlier_N
        edges_E = np.linspace(-1, 1, self.levels)[:-1] + 1 / (self.levels - 1)
        below_NE = 1 / (1 + np.exp((mean_N[:, None] - edges_E) / self.noise))
        return np.diff(below_NE, axis=1, prepend=0.0, append=1.0)

    def log_prob(self, values_NT: np.ndarray, voice: int) -> np.ndarray:
        """[N] nats of waves of one voice, in [0, 1]."""
        places_NT = np.rint(values_NT * (self.levels - 1)).astype(np.int64)
        x_NT = np.pad(self._samples()[places_NT], ((0, 0), (2, 0)))
        total_N = np.zeros(len(places_NT))
        for t in range(places_NT.shape[1]):
            chance_NL = self.chances(voice, x_NT[:, t + 1], x_NT[:, t])
            total_N += np.log(chance_NL[np.arange(len(chance_NL)), places_NT[:, t]])
        return total_N

    def entropy(self) -> float:
        """Nats of a wave given its voice, the mean of all voices."""
        return float(np.mean([self._entropy(voice) for voice in range(len(self.periods))]))

    def _entropy(self, voice: int) -> float:
        sample_L, nothing = self._samples(), np.zeros(1)
        first_L = self.chances(voice, nothing, nothing)[0]
        second_LL = self.chances(voice, sample_L, np.zeros_like(sample_L))
        total = float(_entropy(first_L[None])[0] + first_L @ _entropy(second_LL))
        before_LL = first_L[:, None] * second_LL  # of the sample before the last, and the last
        pairs = np.meshgrid(sample_L, sample_L, indexing="ij")
        next_LLL = self.chances(voice, pairs[1].ravel(), pairs[0].ravel()).reshape(self.levels, self.levels, -1)
        left_LL = _entropy(next_LLL.reshape(-1, self.levels)).reshape(self.levels, self.levels)
        for _ in range(self.length - 2):
            total += float((before_LL * left_LL).sum())
            before_LL = np.einsum("ab,abc->bc", before_LL, next_LLL)
        return total

    def _samples(self) -> np.ndarray:
        return np.linspace(-1, 1, self.levels)

    def _vectors(self, split: str) -> Vectors:
        count = self.num_waves if split == "train" else self.num_held_out
        voice_key, wave_key = keys(2, self.wave_seed, "waves", split)
        voice_N = (uniform(mix(np.arange(count, dtype=np.uint64), voice_key)) * len(self.periods)).astype(np.int64)
        places_NT = np.arange(count * self.length, dtype=np.uint64).reshape(count, self.length)
        chance_NT = uniform(mix(places_NT, wave_key))
        drawn_NT = np.zeros((count, self.length), dtype=np.int64)
        for voice in range(len(self.periods)):
            drawn_NT[voice_N == voice] = self._draw(voice, chance_NT[voice_N == voice])
        return Vectors((drawn_NT / (self.levels - 1)).astype(np.float32), voice_N)

    def _draw(self, voice: int, chance_NT: np.ndarray) -> np.ndarray:
        """[N, T] int64 levels; one number in [0, 1) decides each."""
        x_NT, places_NT = np.zeros((len(chance_NT), self.length + 2)), np.zeros(chance_NT.shape, dtype=np.int64)
        for t in range(self.length):
            below_NL = self.chances(voice, x_NT[:, t + 1], x_NT[:, t]).cumsum(1)[:, :-1]
            places_NT[:, t] = (chance_NT[:, t, None] >= below_NL).sum(1)
            x_NT[:, t + 2] = self._samples()[places_NT[:, t]]
        return places_NT


def _entropy(chances_NL: np.ndarray) -> np.ndarray:
    """[N] nats."""
    logs_NL = np.log(np.where(chances_NL > 0, chances_NL, 1.0))
    nats_N: np.ndarray = -(chances_NL * logs_NL).sum(1)
    return nats_N
