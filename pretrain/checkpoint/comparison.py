"""Whether two checkpoints hold the same bits, however many workers wrote each."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pretrain.checkpoint.manifest import Manifest
from pretrain.checkpoint.read import CheckpointReader

BLOCK_ELEMENTS = 2**20
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True, slots=True)
class TensorComparison:
    """One tensor in checkpoint a beside the one of the same name in checkpoint b."""

    name: str
    verdict: Literal["equal", "different", "only in a", "only in b", "other shape", "other dtype"]
    num_different: int = 0
    """How many elements differ in any bit."""
    first_different: int | None = None
    """Flat index of the first of them."""
    max_difference: float = 0.0
    """The largest |a - b|, in float64: 0 where only the sign of a zero differs, NaN where one of the two is NaN."""
    detail: str = ""

    def __str__(self) -> str:
        if self.verdict == "different":
            return (
                f"{self.name}: {self.num_different} elements differ, the first at {self.first_different}, "
                f"by at most {self.max_difference:.3g}"
            )
        return f"{self.name}: {self.verdict}{self.detail}"


@dataclass(frozen=True, slots=True)
class Comparison:
    """All tensors of both checkpoints, by name, and the numbers beside them that differ."""

    tensors: tuple[TensorComparison, ...]
    numbers: tuple[str, ...]
    """A line for each differing step, counter, scalar or list of numbers."""

    @property
    def equal(self) -> bool:
        return not self.differences

    @property
    def differences(self) -> list[str]:
        """A line for each; empty where the checkpoints are equal."""
        return [*self.numbers, *(str(tensor) for tensor in self.tensors if tensor.verdict != "equal")]


def compare(a: CheckpointReader, b: CheckpointReader) -> Comparison:
    """Compare tensors bit for bit, a block at a time, and step, counters, scalars, skipped draws and last losses.

    Experiment, versions and probe are not compared: they tell how a state came about, not what it is.
    """
    names = sorted(a.names() | b.names())
    return Comparison(
        tensors=tuple(_compare_tensor(name, a, b) for name in names),
        numbers=(*_different_numbers(_numbers(a), _numbers(b)), *_different_lists(a.manifest, b.manifest)),
    )


def _numbers(reader: CheckpointReader) -> dict[str, int | float]:
    counters = {f"counters.{name}": value for name, value in reader.manifest.counters.items()}
    return {"step": reader.step, **counters, **{f"scalars.{k}": v for k, v in reader.manifest.scalars.items()}}


def _different_numbers(a: dict[str, int | float], b: dict[str, int | float]) -> list[str]:
    names = sorted(a.keys() | b.keys())
    return [f"{n}: {a.get(n, 'none')} in a, {b.get(n, 'none')} in b" for n in names if a.get(n) != b.get(n)]


def _different_lists(a: Manifest, b: Manifest) -> Iterator[str]:
    if a.skipped != b.skipped:
        yield f"skipped: {a.skipped} in a, {b.skipped} in b"
    for player in sorted(a.losses.keys() | b.losses.keys()):
        if a.losses.get(player) != b.losses.get(player):
            yield f"losses.{player}: the last losses differ"


def _compare_tensor(name: str, a: CheckpointReader, b: CheckpointReader) -> TensorComparison:
    if name not in b.names():
        return TensorComparison(name, "only in a")
    if name not in a.names():
        return TensorComparison(name, "only in b")
    if a.shape(name) != b.shape(name):
        return TensorComparison(name, "other shape", detail=f": {a.shape(name)} in a, {b.shape(name)} in b")
    if a.dtype(name) != b.dtype(name):
        return TensorComparison(name, "other dtype", detail=f": {a.dtype(name)} in a, {b.dtype(name)} in b")
    return _compare_elements(name, a, b)


def _compare_elements(name: str, a: CheckpointReader, b: CheckpointReader) -> TensorComparison:
    count = math.prod(a.shape(name))
    num_different, first, largest = 0, None, 0.0
    for start in range(0, count, BLOCK_ELEMENTS):
        length = min(BLOCK_ELEMENTS, count - start)
        left, right = a.read(name, start, length), b.read(name, start, length)
        differing = (_bits(left) != _bits(right)).nonzero().reshape(-1)
        if not differing.numel():
            continue
        num_different += differing.numel()
        first = start + int(differing[0]) if first is None else first
        block = (left[differing].double() - right[differing].double()).abs().max().item()
        largest = block if math.isnan(block) or block > largest else largest
    verdict: Literal["equal", "different"] = "different" if num_different else "equal"
    return TensorComparison(name, verdict, num_different=num_different, first_different=first, max_difference=largest)


def _bits(values: Tensor) -> Tensor:
    """[n] the same bytes as integers, in which equal means equal in every bit."""
    return values.view(_INTEGERS[values.element_size()])
