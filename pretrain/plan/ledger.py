"""What memory a forward and backward take from operation to operation.

Every storage that an operation makes counts from then until nothing holds it any more, so that memory is counted and
not estimated. What an operation needs only inside itself is not seen.
"""

from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import ref

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


@dataclass(frozen=True, slots=True)
class Held:
    """Bytes at one moment of a pass, beside the weights and the carries."""

    total: int
    """Gradients of weights left out, once they are complete."""
    complete: int
    """Elements of weights whose gradient is complete."""


@dataclass(frozen=True, slots=True)
class Pass:
    """Forward and backward of one micro-batch for one player."""

    kept: int
    """Bytes that forward keeps for backward, the micro-batch itself among them; weights left out."""
    early: int
    """Bytes at the fullest moment of forward before a second block begins; 0 for a model without blocks."""
    late: int
    """Of the rest of forward."""
    backward: tuple[Held, ...]
    """For every number of complete gradients, in order, the moment at which most was held."""

    @property
    def forward(self) -> int:
        """Bytes at its fullest moment."""
        return max(self.early, self.late)

    def most(self, bytes_of_gradients: int) -> Held:
        """The moment with most, where each element of a complete gradient takes so many bytes from then on."""
        moments = (Held(self.forward, 0), *self.backward)
        return max(moments, key=lambda held: held.total + bytes_of_gradients * held.complete)


FLOAT = torch.float32
"""What is made where no other type is asked for."""
MAKERS = {torch.ops.aten.empty.memory_format, torch.ops.aten.zeros.default}
"""Of tensors from nothing."""


class Ledger(TorchDispatchMode):
    """While entered: the bytes of all storages that operations have made and that are still held.

    Where a mode of fake tensors is given, what an operation makes from nothing is fake too if it has floating point:
    nothing then touches that memory, or computes with what happens to be in it.
    """

    def __init__(self, fake: FakeTensorMode | None = None) -> None:
        super().__init__()
        self.fake = fake
        self.sizes: dict[int, tuple[int, ref[Any]]] = {}
        """By storage; and what tells of its end."""
        self.saved: set[int] = set()
        """Storages that autograd has saved."""
        self.total = self.complete = 0
        self.most: dict[int, int] = {}
        """Complete elements -> the largest total."""

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        keywords = keywords or {}
        is_fake = self.fake is not None and function in MAKERS and (keywords.get("dtype") or FLOAT).is_floating_point
        with self.fake if self.fake is not None and is_fake else nullcontext():
            made = function(*arguments, **keywords)
        leaves = (made,) if isinstance(made, Tensor) else tree_leaves(made)
        self.enter(leaf for leaf in leaves if isinstance(leaf, Tensor))
        return made

    def enter(self, tensors: Iterable[Tensor]) -> None:
        """From now on these count, each storage once."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            if storage._cdata not in self.sizes:
                self._put(storage, storage.nbytes())
        self.most[self.complete] = max(self.most.get(self.complete, 0), self.total)

    def leave_out(self, tensors: Iterable[Tensor]) -> int:
        """From now on these do not count, as somebody else counts them; returns the bytes that they counted for."""
        before = self.total
        for tensor in tensors:
            storage = tensor.untyped_storage()
            self._take(storage._cdata)
            self._put(storage, 0)
        return before - self.total

    def restart(self) -> int:
        """Bytes at the fullest moment so far, which is forgotten."""
        before, self.most = self.most[self.complete], {self.complete: self.total}
        return before

    def save(self, tensor: Tensor) -> Tensor:
        """A hook for what autograd saves."""
        self.saved.add(tensor.untyped_storage()._cdata)
        return tensor

    def saved_bytes(self) -> int:
        return sum(self.sizes[key][0] for key in self.saved if key in self.sizes)

    def complete_gradient(self, weight: Tensor) -> None:
        """A hook for a gradient that an engine takes away, turned into float32 first where it is not."""
        assert weight.grad is not None
        if weight.dtype != torch.float32:
            weight.grad.float()
        weight.grad = None
        self.complete += weight.numel()
        self.most[self.complete] = self.total

    def _put(self, storage: Any, size: int) -> None:
        key = storage._cdata
        self.sizes[key] = size, ref(storage, partial(self._end, key))
        self.total += size

    def _take(self, key: int) -> None:
        size, _ = self.sizes.pop(key, (0, None))
        self.total -= size

    def _end(self, key: int, _: Any) -> None:
        self._take(key)
        self.saved.discard(key)
