"""What a stream hands a model: the rows of one micro-batch.

Shape legend: R rows, L positions of a segment, D features, S source and T target positions.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

IGNORED = -100
"""A label that is not scored."""


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """A segment of token ids and the tokens that follow them."""

    inputs: Tensor
    """[R, L] int64."""
    labels: Tensor
    """[R, L] int64: the token after each input, or `IGNORED`."""
    age: Tensor
    """[R, L] int64: how many tokens back a position may look (0: only itself). It counts from the start of the
    document, or of the lane where documents are not separated; so it masks memory that is empty, or of another
    document."""
    sample_ids: Tensor
    """[R] int64: the identity of each row's data in the stream, for proofs that two runs saw the same."""

    @property
    def rows(self) -> int:
        return self.inputs.shape[0]


@dataclass(frozen=True, slots=True)
class VectorBatch:
    """Independent feature vectors (images are flattened row by row)."""

    values: Tensor
    """[R, D] float32."""
    labels: Tensor
    """[R] int64: the class, or `IGNORED` where there is none."""
    sample_ids: Tensor
    """[R] int64."""

    @property
    def rows(self) -> int:
        return self.values.shape[0]


@dataclass(frozen=True, slots=True)
class PairBatch:
    """Source sequences and the target sequences that belong to them; both are padded at their ends."""

    sources: Tensor
    """[R, S] int64; what stands behind a source's length means nothing."""
    source_lengths: Tensor
    """[R] int64, at least 1."""
    inputs: Tensor
    """[R, T] int64: the token that begins a target, then the target."""
    labels: Tensor
    """[R, T] int64: the target, then the token that ends it, then `IGNORED`."""
    sample_ids: Tensor
    """[R] int64."""

    @property
    def rows(self) -> int:
        return self.sources.shape[0]


Batch = TokenBatch | VectorBatch | PairBatch


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The same batch on another device."""
    return type(batch)(**{name: getattr(batch, name).to(device, non_blocking=True) for name in batch.__slots__})
