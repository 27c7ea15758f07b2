"""Synthetic pairs of which the least latency is known: adjacent tokens change places. They need no files.

    x = a b c d e f ..   ->   y = b a d c f e ..

All tokens are independent and uniform over V symbols, so y_1 is known when x_2 has been read, y_2 at once after, y_3
with x_4, and so on: the least latent reading that gets every token right is g = (2, 2, 4, 4, ..), whose differentiable
average lagging is 2. Who reads along the diagonal, at a lag of 1, must guess every other token, and is right for
(1 + 1 / V) / 2 of them at most; who waits once lags by 2 for good (`best_accuracy`).
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from data_pipeline.mixing import keys, mix, uniform
from data_pipeline.pair_data import PairData
from data_pipeline.streams.pairs import Pairs, Sequences


class SwapPairsConfig(PairData):
    """Pairs drawn once; the same fields give the same pairs everywhere."""

    kind: Literal["swap_pairs"]
    num_symbols: int = Field(default=11, ge=2)
    """V; the token that begins and ends a target is one more."""
    min_length: int = Field(default=10, ge=2)
    max_length: int = Field(default=10, ge=2)
    """Of sources, both even; every even length between is as likely."""
    num_pairs: int = Field(default=20_000, ge=1)
    """Of the split "train"."""
    num_held_out: int = Field(default=500, ge=1)
    """Of "valid", and of "test"."""
    pair_seed: int = 0

    @model_validator(mode="after")
    def _check(self) -> "SwapPairsConfig":
        for name in ("min_length", "max_length"):
            if getattr(self, name) % 2:
                raise ValueError(f"data.{name}={getattr(self, name)}: must be even, as tokens change places in twos")
        if self.min_length > self.max_length:
            raise ValueError(f"data.min_length={self.min_length} is above data.max_length={self.max_length}")
        return self

    def vocab_size(self) -> int:
        """The symbols, and the boundary."""
        return self.num_symbols + 1

    def boundary(self) -> int:
        return self.num_symbols

    def text(self, ids: Sequence[int]) -> str:
        """The numbers."""
        return " ".join(map(str, ids))

    def best_accuracy(self, lagging: float) -> float:
        """The share of target tokens that who reads before it writes has right at most, in expectation, at this
        differentiable average lagging over the places of the references, which is then at least 1.

        The lag of a place is the highest so far, so who has been a token ahead once stays there. A share f of the
        places at a lag of 2 or more costs 1 + f at least, and of the others, which begin with a guess, at least every
        second is one: f + (1 - f) (1 + 1 / V) / 2.
        """
        ahead = min(max(lagging - 1, 0.0), 1.0)
        return ahead + (1 - ahead) * (1 + 1 / self.num_symbols) / 2

    def _pairs(self, split: str) -> Pairs:
        count = self.num_pairs if split == "train" else self.num_held_out
        length_key, token_key = keys(2, self.pair_seed, "swap pairs", split)
        num_lengths = (self.max_length - self.min_length) // 2 + 1
        chosen_N = uniform(mix(np.arange(count, dtype=np.uint64), length_key)) * num_lengths
        length_N = self.min_length + 2 * chosen_N.astype(np.int64)
        places_NL = np.arange(count * self.max_length, dtype=np.uint64).reshape(count, self.max_length)
        source_NL = (uniform(mix(places_NL, token_key)) * self.num_symbols).astype(np.int64)
        target_NL = source_NL.reshape(count, -1, 2)[:, :, ::-1].reshape(count, -1)
        within_NL = np.arange(self.max_length) < length_N[:, None]
        ends_N = np.cumsum(length_N)
        return Pairs(Sequences(source_NL[within_NL], ends_N), Sequences(target_NL[within_NL], ends_N), self.boundary())
