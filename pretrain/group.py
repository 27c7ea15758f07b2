"""The workers of a run as one group, whether there is one (no process group needed) or many (torch.distributed)."""

import socket
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from data_pipeline.config import BadInput
from pretrain.meeting import JOIN_TIMEOUT, meet


@dataclass(frozen=True)
class Group:
    """This worker's place among the workers, and the few collectives that a run needs."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    process_group: dist.ProcessGroup | None = field(default=None, compare=False, repr=False)
    """That the collectives use; None: the default one. Two threads must never use one at once."""

    def second(self, timeout: timedelta) -> "Group":
        """The same workers over a gloo group of its own, for another thread; collective over this one."""
        if self.world_size == 1:
            return self
        return replace(self, process_group=dist.new_group(backend="gloo", timeout=timeout))

    @property
    def leads(self) -> bool:
        """Whether this is the worker that writes what is written once."""
        return self.rank == 0

    def all_reduce_sum(self, tensor: Tensor) -> Tensor:
        """The sum over workers, in place."""
        if self.world_size > 1:
            dist.all_reduce(tensor, group=self.process_group)
        return tensor

    def broadcast(self, tensor: Tensor, source: int = 0) -> Tensor:
        """The tensor of the worker `source`, by default the leader's, in place."""
        if self.world_size > 1:
            dist.broadcast(tensor, src=source, group=self.process_group)
        return tensor

    def gather(self, value: Any) -> list[Any]:
        """Every worker's value, by rank, on every worker."""
        if self.world_size == 1:
            return [value]
        gathered: list[Any] = [None] * self.world_size
        dist.all_gather_object(gathered, value, group=self.process_group)
        return gathered

    def gather_to_leader(self, value: Any) -> list[Any]:
        """Every worker's value, by rank, on the leader; empty on the others."""
        if self.world_size == 1:
            return [value]
        gathered: list[Any] = [None] * self.world_size if self.leads else []
        dist.gather_object(value, gathered if self.leads else None, dst=0, group=self.process_group)
        return gathered

    def tell(self, value: Any) -> Any:
        """The leader's value, on every worker; what the others give is not looked at."""
        if self.world_size == 1:
            return value
        told = [value if self.leads else None]
        dist.broadcast_object_list(told, src=0, group=self.process_group)
        return told[0]

    def agree(self, error: BaseException | None) -> list[str]:
        """The messages of all workers that failed: empty on every worker, or the same list on every worker."""
        messages = self.gather(None if error is None else f"{type(error).__name__}: {error}")
        return [f"worker {rank}: {message}" for rank, message in enumerate(messages) if message is not None]

    def barrier(self) -> None:
        if self.world_size > 1:
            dist.barrier(group=self.process_group)

    def share(self, num_micro_batches: int) -> range:
        """Which micro-batches this worker computes: a contiguous range, equally many on each."""
        check_divides(self.world_size, num_micro_batches)
        each = num_micro_batches // self.world_size
        return range(self.rank * each, (self.rank + 1) * each)


def check_divides(workers: int, num_micro_batches: int) -> None:
    """Raise BadInput, naming the allowed counts, unless the workers share the micro-batches equally."""
    if workers < 1 or num_micro_batches % workers:
        allowed = [n for n in range(1, num_micro_batches + 1) if num_micro_batches % n == 0]
        raise BadInput(
            f"workers={workers}: a step has batch.micro_batches={num_micro_batches}, which {workers} workers cannot "
            f"share equally; use one of {', '.join(map(str, allowed))} workers, or change batch.micro_batches"
        )


def join(
    rank: int,
    world_size: int,
    local_rank: int,
    *,
    address: str,
    port: int,
    timeout: timedelta,
    device: torch.device,
    listener: socket.socket | None = None,
) -> Group:
    """Join the process group at `address:port`; gloo for CPU tensors, NCCL as well where the device is CUDA.

    `timeout` is a collective's; the leader (rank 0) serves on `listener`, or listens itself. Raises GaveUp, naming the
    address and the missing workers, where they do not come; BadInput where the leader's port is taken.
    """
    if world_size > 1:
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        store = meet(
            rank, world_size, address=address, port=port, timeout=min(timeout, JOIN_TIMEOUT), listener=listener
        )
        store.set_timeout(timeout)
        dist.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=timeout)
    return Group(rank=rank, world_size=world_size, local_rank=local_rank)
