"""How long documents and items are, by source and split: of texts in tokens, of recordings in samples, of music in
steps of time; images have but a size in bytes."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cluster.data_verbs.target import Target
from data_pipeline.media.image_data import ImagesConfig
from data_pipeline.media.media_data import MediaData
from data_pipeline.media.music_data import MusicConfig
from data_pipeline.prepare.progress import Counted
from data_pipeline.shards import TokenShards


@dataclass(frozen=True, slots=True)
class Lengths:
    """One split of one source."""

    source: str
    split: str
    lengths: np.ndarray
    """[documents] int64: units of each; of tokens, ends included."""
    num_bytes: int | None
    """Of the text, or of the items as they are stored; None where there was none."""
    counted: Counted = "documents"
    unit: str = "tokens"
    rate: int | None = None
    """Of audio: samples a second."""
    classes: dict[str, int] = field(default_factory=dict)
    """How many items are of each, where they have classes."""

    @property
    def name(self) -> str:
        return f"{self.source} {self.split}".strip()

    @property
    def total(self) -> int:
        """Units of all."""
        return int(self.lengths.sum())

    @property
    def per_unit(self) -> str:
        """Such as bytes_per_token."""
        return f"bytes_per_{self.unit.removesuffix('s')}"

    def bins(self) -> list[tuple[int, int]]:
        """Of 2**i to 2**(i + 1) - 1 units: (2**i, how many), from the shortest to the longest."""
        powers = np.bincount(np.frexp(self.lengths)[1] - 1)
        first = int(np.flatnonzero(powers)[0])
        return [(1 << power, int(count)) for power, count in enumerate(powers) if power >= first]

    def to_json(self) -> dict[str, Any]:
        quantiles = np.quantile(self.lengths, (0.0, 0.5, 0.9, 1.0), method="inverted_cdf")
        found: dict[str, Any] = {
            "source": self.source,
            "split": self.split,
            self.counted: len(self.lengths),
            self.unit: self.total,
            "bytes": self.num_bytes,
        }
        if self.unit != "bytes":
            found[self.per_unit] = None if self.num_bytes is None else self.num_bytes / self.total
        if self.rate is not None:
            found["seconds"] = self.total / self.rate
        found["length"] = dict(zip(("least", "median", "ninety_percent", "most"), map(int, quantiles), strict=True))
        found["histogram"] = [{"from": start, "to": 2 * start - 1, self.counted: count} for start, count in self.bins()]
        return found | ({"classes": self.classes} if self.classes else {})


def lengths_of(target: Target) -> Iterator[Lengths]:
    """Of every split of every source; BadInput where the data are neither documents of tokens nor prepared media."""
    if isinstance(target.data, MediaData):
        for split in target.data.splits():
            yield _of_media(target.data, split)
        return
    for name, source in target.documents_of().items():
        for split in source.splits():
            documents = source.documents(split)
            num_bytes = documents.num_bytes if isinstance(documents, TokenShards) else None
            yield Lengths(name, split, documents.lengths, num_bytes)


def _of_media(data: MediaData, split: str) -> Lengths:
    shards = data.shards(split)
    is_image = isinstance(data, ImagesConfig)
    counts = np.bincount(shards.labels[shards.labels >= 0], minlength=len(data.corpus.classes))
    return Lengths(
        source="",
        split=split,
        lengths=shards.sizes if is_image else shards.lengths,
        num_bytes=int(shards.sizes.sum()),
        counted="items",
        unit="bytes" if is_image else "steps" if isinstance(data, MusicConfig) else "samples",
        rate=data.sample_rate,
        classes=dict(zip(data.corpus.classes, counts.tolist(), strict=True)),
    )
