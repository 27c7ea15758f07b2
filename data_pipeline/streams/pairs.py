"""Pairs of token sequences held in memory, in a permuted order each epoch.

Legend: N pairs, R rows of a micro-batch, S source and T target positions. A draw has the next G * R of the epoch's
order; each epoch leaves out the N mod (G * R) pairs that fill no draw, others each time. Every micro-batch is as wide
as its longest source and target.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch

from data_pipeline.batch import IGNORED, PairBatch
from data_pipeline.streams.permutation import Permutation
from data_pipeline.streams.stream import Draws, no_whole_draw


@dataclass(frozen=True, slots=True)
class Sequences:
    """Token sequences end to end."""

    tokens: np.ndarray
    """int64, all of them."""
    ends: np.ndarray
    """[N] int64: where each ends, and the next begins."""

    @classmethod
    def of(cls, sequences: Iterable[Iterable[int]]) -> "Sequences":
        """Of lists or arrays of ids."""
        listed = [list(sequence) for sequence in sequences]
        tokens = np.fromiter(chain.from_iterable(listed), dtype=np.int64)
        return cls(tokens, np.cumsum([len(one) for one in listed], dtype=np.int64))

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, number: int) -> np.ndarray:
        return self.tokens[self.ends[number - 1] if number else 0 : self.ends[number]]


@dataclass(frozen=True, slots=True)
class Pairs:
    """A split."""

    sources: Sequences
    """None of them empty."""
    targets: Sequences
    """Without the token that begins and ends them."""
    boundary: int
    """That token."""

    def __len__(self) -> int:
        return len(self.sources)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all tokens and lengths."""
        digest = hashlib.sha256(f"pairs {len(self)} {self.boundary}".encode())
        for part in (self.sources, self.targets):
            digest.update(part.ends.astype("<i8").tobytes())
            digest.update(part.tokens.astype("<i8").tobytes())
        return digest.hexdigest()

    def batch(self, numbers_R: np.ndarray, sample_ids_R: np.ndarray | None = None) -> PairBatch:
        """These pairs, padded at their ends; ids are the numbers unless given."""
        sources = [self.sources[int(number)] for number in numbers_R]
        targets = [self.targets[int(number)] for number in numbers_R]
        end = np.array([self.boundary])
        ids_R = numbers_R if sample_ids_R is None else sample_ids_R
        return PairBatch(
            sources=padded(sources, self.boundary),
            source_lengths=torch.tensor([len(source) for source in sources]),
            inputs=padded([np.concatenate([end, target]) for target in targets], self.boundary),
            labels=padded([np.concatenate([target, end]) for target in targets], IGNORED),
            sample_ids=torch.from_numpy(ids_R.astype(np.int64)),
        )


def padded(sequences: list[np.ndarray], filler: int) -> torch.Tensor:
    """[R, longest] int64."""
    rows = np.full((len(sequences), max(map(len, sequences))), filler, dtype=np.int64)
    for row, sequence in zip(rows, sequences, strict=True):
        row[: len(sequence)] = sequence
    return torch.from_numpy(rows)


class PairStream:
    """Batches of pairs; a row's id is epoch * N + its number in the data set."""

    def __init__(self, pairs: Pairs, *, draws: Draws) -> None:
        """BadInput if there are fewer pairs than rows in one draw."""
        self._pairs, self._draws, self._fingerprint = pairs, draws, pairs.fingerprint
        if len(pairs) < draws.total:
            raise no_whole_draw("pairs", len(pairs), draws.total, draws)

    @property
    def draws_per_epoch(self) -> int:
        return len(self._pairs) // self._draws.total

    def micro_batch(self, draw: int, micro_batch: int) -> PairBatch:
        epoch, number = divmod(draw, self.draws_per_epoch)
        place_R = self._draws.rows_of(draw, micro_batch) + number * self._draws.total
        row_R = Permutation(len(self._pairs), self._draws.seed, epoch, "pairs")(place_R)
        return self._pairs.batch(row_R, epoch * len(self._pairs) + row_R)

    def fingerprint(self) -> dict[str, str | int]:
        return {"reads": "pairs", "data": self._fingerprint, **self._draws.model_dump()}
