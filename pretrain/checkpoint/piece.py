"""A named tensor cut in flat ranges: what a checkpoint is made of, whoever holds which range.

Names: `weights/<parameter>` (float32 master), `<moment>/<parameter>` (optimizer state, e.g. `exp_avg/...`),
`buffers/<buffer>`, `carry/<name>` (rows of all micro-batches, stacked in their order).
"""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Piece:
    """Elements `start : start + tensor.numel()` of the flattened tensor `name`."""

    name: str
    shape: tuple[int, ...]
    """Of the whole tensor."""
    start: int
    tensor: Tensor
    """[n], contiguous or not, on any device."""


class Reader(Protocol):
    """Random access to the named tensors of a checkpoint."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Of the whole tensor; raises Corrupt naming it where the checkpoint has none such."""

    def names(self) -> frozenset[str]: ...

    def read(self, name: str, start: int, count: int) -> Tensor:
        """[count] flat elements, on the CPU in the dtype they were saved in, verified against their hashes."""
