"""What comes and goes in a worker's memory during a step, by engine and ZeRO stage.

Forward keeps activations for backward, backward trades them for gradients, gradients are summed over the workers, the
optimizer moves weights. `moments` says what is there at each of these, as `pretrain.engines` and, checked with its
source, DeepSpeed 0.19.8 do it; the passes themselves are counted (`pretrain.plan.passes`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from pretrain.engines import DeepSpeedEngineConfig, EngineConfig, LocalEngineConfig
from pretrain.engines.engine import DTYPES
from pretrain.engines.tree_sum import TreeSum, largest_nodes
from pretrain.group import Group
from pretrain.plan.gathering import NOTHING, Gathering
from pretrain.plan.ledger import Held, Pass

FLOAT32_BYTES = 4

COALESCED = 500_000_000
"""Elements that DeepSpeed copies together before it all-reduces them, where its ZeRO optimizer does not cut gradients:
`MEMORY_OPT_ALLREDUCE_SIZE` of its `runtime/engine.py`."""


@dataclass(frozen=True, slots=True)
class Player:
    """Whose turn it is."""

    in_order: tuple[int, ...]
    """Elements of each of its weights, in the model's order."""
    groups: tuple[tuple[int, ...], ...]
    """The same by group of its optimizer."""
    passes: Pass
    gathering: Gathering = NOTHING
    """Of ZeRO stage 3."""

    @property
    def count(self) -> int:
        return sum(self.in_order)


@dataclass(frozen=True, slots=True)
class Place:
    """One worker among others."""

    engine: EngineConfig
    zero_stage: int
    workers: int
    micro_batches: int
    """Of the turn, over all workers."""

    @property
    def each(self) -> int:
        """Micro-batches of this worker."""
        return self.micro_batches // self.workers

    @property
    def itemsize(self) -> int:
        """Of a weight."""
        return DTYPES[self.engine.precision].itemsize

    def share(self, elements: int) -> int:
        """Of what is cut over the workers."""
        return -(-elements // self.workers)

    def bucket(self, player: Player) -> int:
        """Elements of DeepSpeed's buckets."""
        assert isinstance(self.engine, DeepSpeedEngineConfig)
        return min(self.engine.bucket_size, player.count)

    def travelling(self, player: Player) -> int:
        """Elements that travel at a time: a bucket of them, or a weight that is larger."""
        return max(self.bucket(player), *player.in_order)

    def reduces_in_backward(self, player: Player) -> bool:
        """Whether a bucket is full before backward has ended."""
        return self.bucket(player) < player.count


@dataclass(frozen=True, slots=True)
class Moment:
    """What comes and goes, in bytes."""

    gradients: int = 0
    activations: int = 0
    working: int = 0
    communication: int = 0

    @property
    def total(self) -> int:
        return self.gradients + self.activations + self.working + self.communication


def moments(place: Place, player: Player, every: int) -> Iterator[Moment]:
    """The moments of one turn at which a worker may hold most; `every`: elements of all players' weights."""
    if isinstance(place.engine, LocalEngineConfig):
        return _canonical(place, player) if place.engine.reduction == "canonical" else _local(place, player)
    if place.zero_stage == 0:
        return _replicated(place, player)
    if place.zero_stage == 3:
        return _cut_weights(place, player)
    if place.engine.precision == "float32":
        return _cut_float32(place, player)
    return _cut_optimizer(place, player, every) if place.zero_stage == 1 else _cut_gradients(place, player)


def _at(held: Held, passes: Pass, *, gradients: int, communication: int = 0) -> Moment:
    """A moment of a pass."""
    activations = min(passes.kept, held.total)
    return Moment(gradients, activations, held.total - activations, communication)


def _passes(place: Place, player: Player) -> Iterator[Moment]:
    """Where float32 gradients come into being in the first micro-batch's backward, and are added to in the others'."""
    first = player.passes.most(FLOAT32_BYTES)
    yield _at(first, player.passes, gradients=FLOAT32_BYTES * first.complete)
    if place.each > 1:
        yield _at(player.passes.most(0), player.passes, gradients=FLOAT32_BYTES * player.count)


def _local(place: Place, player: Player) -> Iterator[Moment]:
    """All gradients are copied into one flat tensor, which is summed over the workers."""
    yield from _passes(place, player)
    gradients = FLOAT32_BYTES * player.count
    yield Moment(gradients, communication=gradients if place.workers > 1 else 0)


def _canonical(place: Place, player: Player) -> Iterator[Moment]:
    """Sums of nodes of the tree wait for their siblings, each as large as all gradients."""
    whole = FLOAT32_BYTES * player.count
    before, after = waiting_sums(place.micro_batches, place.workers)
    first = player.passes.most(FLOAT32_BYTES)
    yield _at(first, player.passes, gradients=FLOAT32_BYTES * first.complete + before * whole)
    yield Moment((before + 1) * whole, working=whole)  # the last micro-batch's, and their flat copy
    yield Moment(after * whole)


def _replicated(place: Place, player: Player) -> Iterator[Moment]:
    yield from _passes(place, player)
    tensors = [size for group in player.groups for size in group]
    yield Moment(FLOAT32_BYTES * player.count, communication=FLOAT32_BYTES * copied_together(tensors))


def _cut_optimizer(place: Place, player: Player, every: int) -> Iterator[Moment]:
    """Stage 1 in bfloat16: every player has a flat float32 gradient for each group, to which each weight's is added."""
    gradients = FLOAT32_BYTES * every
    yield _at(player.passes.most(0), player.passes, gradients=gradients)
    yield Moment(gradients, communication=FLOAT32_BYTES * copied_together([sum(group) for group in player.groups]))


def _cut_gradients(place: Place, player: Player) -> Iterator[Moment]:
    """Stage 2 in bfloat16: gradients go through a bucket, and float32 sums of this worker's share remain.

    A full bucket is copied, and the copy turned into float32 to be summed over the workers.
    """
    bucket = place.itemsize * place.bucket(player)
    reducing = bucket + (place.itemsize + FLOAT32_BYTES) * place.travelling(player)
    gradients, inside = FLOAT32_BYTES * place.share(player.count), player.passes.most(0)
    yield _at(inside, player.passes, gradients=gradients, communication=bucket)
    if place.reduces_in_backward(player):
        yield _at(inside, player.passes, gradients=gradients, communication=reducing)
    yield Moment(gradients, communication=reducing)


def _cut_float32(place: Place, player: Player) -> Iterator[Moment]:
    """Stages 1 and 2 in float32: gradients move into a bucket, which is copied for the workers, and what this worker's
    share has got of their sum is copied to remain, and once more for the optimizer."""
    bucket, share = FLOAT32_BYTES * place.bucket(player), FLOAT32_BYTES * place.share(player.count)
    copied = FLOAT32_BYTES * place.travelling(player) if place.workers > 1 else 0
    if place.zero_stage == 1:
        gradients = FLOAT32_BYTES * player.count
        yield from _passes(place, player)
        yield Moment(gradients, communication=bucket)
        yield Moment(gradients, working=share, communication=copied)
    else:
        inside, before = player.passes.most(0), share if place.each > 1 else 0
        yield _at(inside, player.passes, gradients=before, communication=bucket)
        if place.reduces_in_backward(player):
            yield _at(inside, player.passes, gradients=before + share, communication=bucket + copied)
        yield Moment(before + share, communication=bucket + copied)
    yield Moment(share, working=share)


def _cut_weights(place: Place, player: Player) -> Iterator[Moment]:
    """Stage 3: gradients go through a float32 bucket that is there always, and are copied to be summed; weights are
    whole for a while."""
    bucket, share = FLOAT32_BYTES * place.bucket(player), FLOAT32_BYTES * place.share(player.count)
    reducing = bucket + FLOAT32_BYTES * place.travelling(player)
    whole = place.itemsize * player.gathering.most_whole
    inside = _at(player.passes.most(0), player.passes, gradients=share, communication=bucket)
    yield replace(inside, working=inside.working + whole)
    if place.reduces_in_backward(player):
        yield replace(inside, working=inside.working + whole, communication=reducing)
    yield Moment(share, communication=reducing)
    yield Moment(share, working=share, communication=bucket)


def copied_together(sizes: Sequence[int], limit: int = COALESCED) -> int:
    """Elements that are copied into one tensor at most, of tensors of so many: they are gathered until there are more
    than `limit`; one alone is not copied."""
    most, gathered = 0, []
    for size in sizes:
        gathered.append(size)
        if sum(gathered) > limit:
            most, gathered = max(most, _copy(gathered)), []
    return max(most, _copy(gathered))


def _copy(sizes: Sequence[int]) -> int:
    return sum(sizes) if len(sizes) > 1 else 0


def waiting_sums(micro_batches: int, workers: int) -> tuple[int, int]:
    """How many sums of nodes the first worker holds at most while it computes, and while it exchanges them."""
    group, root = Group(world_size=workers), range(micro_batches)
    nothing = torch.zeros(0)
    own, before = TreeSum(root), 0
    for micro_batch in group.share(micro_batches):
        before = max(before, len(own.nodes))
        own.add(range(micro_batch, micro_batch + 1), nothing)
    whole, after, left = TreeSum(root), 0, len(own.nodes)
    for rank in range(workers):
        for node in largest_nodes(Group(rank=rank, world_size=workers).share(micro_batches), root):
            left -= rank == 0
            after = max(after, len(whole.nodes) + left + 1)
            whole.add(node, nothing)
    return before, after
