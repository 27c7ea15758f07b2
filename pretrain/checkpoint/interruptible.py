"""A group for a thread that may be left behind: it waits for the other workers in Python and not inside of gloo, so
that it can be told to give up, and can end with its process.

A thread inside of gloo cannot be woken; when its peer goes while the interpreter ends, it takes the process down with
"terminate called" in place of an exit code.
"""

import pickle
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from pretrain.group import Group

SHORTEST_SECONDS, LONGEST_SECONDS = 0.0005, 0.05
"""Between two looks; each is twice the one before."""


@dataclass(frozen=True)
class InterruptibleGroup(Group):
    """The collectives of Python values that a save needs."""

    wait: Callable[[Callable[[], bool]], None] = lambda is_done: None
    """Returns once it is done; raises to give up."""

    def gather(self, value: Any) -> list[Any]:
        if self.world_size == 1:
            return [value]
        own, sizes = self._sized(value)
        gathered = [torch.empty(max(sizes), dtype=torch.uint8) for _ in sizes]
        self._finish(dist.all_gather(gathered, _padded(own, max(sizes)), group=self.process_group, async_op=True))
        return [_value(content, size) for content, size in zip(gathered, sizes, strict=True)]

    def gather_to_leader(self, value: Any) -> list[Any]:
        if self.world_size == 1:
            return [value]
        own, sizes = self._sized(value)
        gathered = [torch.empty(max(sizes), dtype=torch.uint8) for _ in sizes] if self.leads else None
        own = _padded(own, max(sizes))
        self._finish(dist.gather(own, gathered, dst=0, group=self.process_group, async_op=True))
        return [_value(content, size) for content, size in zip(gathered or [], sizes, strict=False)]

    def tell(self, value: Any) -> Any:
        if self.world_size == 1:
            return value
        own, sizes = self._sized(value if self.leads else None)
        told = _padded(own, sizes[0])[: sizes[0]].contiguous()
        self._finish(dist.broadcast(told, src=0, group=self.process_group, async_op=True))
        return _value(told, sizes[0])

    def _sized(self, value: Any) -> tuple[Tensor, list[int]]:
        """[n] the value's bytes, and n of every worker."""
        own = torch.frombuffer(bytearray(pickle.dumps(value)), dtype=torch.uint8)
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.world_size)]
        self._finish(dist.all_gather(sizes, torch.tensor([own.numel()]), group=self.process_group, async_op=True))
        return own, [int(size) for size in sizes]

    def _finish(self, work: Any) -> None:
        self.wait(work.is_completed)
        work.wait()


def look_until(is_done: Callable[[], bool], give_up: Callable[[], None]) -> None:
    """Return once it is done; `give_up` is called before each pause, and raises to give up."""
    pause = SHORTEST_SECONDS
    while not is_done():
        give_up()
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_SECONDS)


def _padded(content: Tensor, size: int) -> Tensor:
    """[size or more]"""
    return torch.nn.functional.pad(content, (0, max(0, size - content.numel())))


def _value(content: Tensor, size: int) -> Any:
    """Of a worker of this run; the process group is trusted, as everywhere."""
    return pickle.loads(content[:size].numpy().tobytes())
