"""What all data of pairs of token sequences have: a source, and the target that belongs to it."""

import abc
from collections.abc import Sequence

from data_pipeline.config import BadInput, Config
from data_pipeline.sources.document import SPLITS
from data_pipeline.streams.pairs import Pairs, PairStream
from data_pipeline.streams.reading import Reads, cannot_be_read, check_split
from data_pipeline.streams.stream import Draws, Stream


class PairData(Config, abc.ABC):
    """Data sets that fit in memory."""

    kind: str

    def splits(self) -> tuple[str, ...]:
        """Which there are."""
        return SPLITS

    @abc.abstractmethod
    def vocab_size(self) -> int:
        """Ids of sources and targets are below it."""

    @abc.abstractmethod
    def boundary(self) -> int:
        """The token that begins and ends a target."""

    @abc.abstractmethod
    def text(self, ids: Sequence[int]) -> str:
        """What the tokens say."""

    def unknown(self) -> int | None:
        """The token that stands for what the vocabulary cannot spell, where there is one."""
        return None

    def references(self, split: str) -> tuple[str, ...] | None:
        """The targets of `pairs(split)` as they were before any tokenizer; None where they never were text."""
        return None

    def left_out(self, split: str) -> dict[str, int]:
        """What became of a split on its way to `pairs`, where anything can be left out of it."""
        return {}

    @abc.abstractmethod
    def _pairs(self, split: str) -> Pairs: ...

    def pairs(self, split: str) -> Pairs:
        """All of a split; BadInput where there is no such split."""
        check_split(self.kind, split, self.splits())
        return self._pairs(split)

    def fingerprint(self) -> str:
        """SHA-256 over the training split."""
        return self.pairs("train").fingerprint

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
        """Shuffled pairs; BadInput for a model that reads anything else."""
        if reads != "pairs":
            raise cannot_be_read(self.kind, reads, "pairs")
        if length is not None:
            raise BadInput(f"length {length}: data.kind {self.kind} has no segments; leave length out")
        return PairStream(self.pairs(split), draws=Draws(micro_batches=micro_batches, rows=rows, seed=seed))
