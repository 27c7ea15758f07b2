"""Which elements of which parameter this worker's optimizer moves, and DeepSpeed's other state that it keeps private.

Every stage has float32 tensors that the torch optimizer moves: the parameters themselves (stage 0), or one flat tensor
per parameter group, cut over the workers (stages 1, 2: across parameters; stage 3: each parameter by itself). A `Shard`
is a run of elements of one parameter in one of these. Checked with DeepSpeed 0.19.8.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Shard:
    """Elements `start : start + count` of the parameter `name`."""

    name: str
    shape: tuple[int, ...]
    """Of the whole parameter."""
    start: int
    count: int
    moved: Tensor
    """What the optimizer moves, float32; the key of its state."""
    offset: int
    """Where the elements begin in `moved`."""

    def of(self, tensor: Tensor) -> Tensor:
        """[count] view of this shard's elements in `moved`, or in one of its moments."""
        return tensor.detach().view(-1)[self.offset : self.offset + self.count]


def whole(named: Iterable[tuple[str, nn.Parameter]]) -> Iterator[Shard]:
    """Stage 0: every parameter, as itself."""
    for name, parameter in named:
        yield Shard(name, tuple(parameter.shape), 0, parameter.numel(), parameter, 0)


def across_parameters(named: Iterable[tuple[str, nn.Parameter]], optimizer: Any) -> Iterator[Shard]:
    """Stages 1 and 2: private are `_hp_mapping` and its addresses."""
    for name, parameter in named:
        mapping = parameter._hp_mapping  # type: ignore[attr-defined]
        if mapping is not None:
            (moved,) = optimizer.param_groups[mapping.param_group_index]["params"]
            place, own = mapping.lp_fragment_address, mapping.hp_fragment_address
            yield Shard(name, tuple(parameter.shape), place.start, own.numel, moved, own.start)


def within_parameters(named: Iterable[tuple[str, Any]], optimizer: Any, rank: int) -> Iterator[Shard]:
    """Stage 3: private are `grad_position`, `fp32_partitioned_groups_flat` and the attributes `ds_*`."""
    for name, parameter in named:
        group, offset, padded = optimizer.grad_position[optimizer.get_param_id(parameter)]
        start = rank * padded
        count = min(padded, math.prod(parameter.ds_shape) - start)
        if count > 0:
            moved = optimizer.fp32_partitioned_groups_flat[group]
            yield Shard(name, tuple(parameter.ds_shape), start, count, moved, offset)


@torch.no_grad()
def refresh_sharded_weights(optimizer: Any) -> None:
    """Stage 3: make the model's shards anew from the float32 ones, as the end of DeepSpeed's own step does."""
    optimizer._partition_all_parameters()
    for group in range(len(optimizer.fp32_partitioned_groups_flat)):
        optimizer._reassign_or_swap_out_partitioned_parameters(group)
    if optimizer.persistent_parameters:
        optimizer.persistent_parameters[0].all_gather(optimizer.persistent_parameters)


def sharded_gradients(optimizer: Any) -> Tensor:
    """Stage 3: this worker's part of the gradients, averaged over workers and added up over micro-batches, float32.

    DeepSpeed never clears it: what got no gradient since the last update would still have the one before.
    """
    return optimizer.grad_partitions_flat_buffer


@torch.no_grad()
def forget_gradients(optimizer: Any, stage: int) -> None:
    """Stages 1 to 3: clear what is still there after a turn's last backward, finite or not.

    Stages 1 and 2 keep sums for the step to come in `averaged_gradients`, to which stage 2 in bfloat16 would add the
    next turn's; the optimizer of stage 1 in bfloat16 has none, and its `zero_grad` clears its float32 sums. At stage 3
    `zero_grad` resets the count of micro-batches, so that the next gradient is copied and not added.
    """
    optimizer.zero_grad()
    if stage == 3:
        sharded_gradients(optimizer).zero_()
    elif hasattr(optimizer, "averaged_gradients"):
        optimizer.averaged_gradients.clear()
