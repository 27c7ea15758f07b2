"""What a worker sends in a step, by engine and ZeRO stage.

Rajbhandari et al. 2020 (https://arxiv.org/abs/1910.02054), section 7: over N workers in a ring, to reduce-scatter or
all-gather S bytes each worker sends (N - 1)/N S, to all-reduce them twice that. By the paper stages 0 to 2 send 2
bytes for each byte of gradients and stage 3 sends 3. What is counted here is what our engines really send:

- Gradients travel in float32, whatever the weights are in.
- DeepSpeed 0.19.8 all-reduces gradients at stages 1 and 2 as well, and then all-gathers the weights: a third part.
- Up to stage 1 gradients travel once in a player's turn, after its last micro-batch; at stages 2 and 3 after each.
- At stage 3 weights are gathered for forward, and those that are not needed soon again for backward
  (`pretrain.plan.gathering`); small ones once, after the update.

Losses, counts and the like are left out.
"""

from dataclasses import dataclass

from pretrain.engines import DeepSpeedEngineConfig, EngineConfig
from pretrain.engines.engine import DTYPES
from pretrain.engines.tree_sum import largest_nodes
from pretrain.group import Group
from pretrain.plan.gathering import NOTHING, Gathering

FLOAT32_BYTES = 4


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes that one worker sends, and receives, in a step."""

    gradients: int
    weights: int

    @property
    def total(self) -> int:
        return self.gradients + self.weights


def turn_traffic(
    count: int,
    engine: EngineConfig,
    zero_stage: int,
    workers: int,
    micro_batches: int,
    gathering: Gathering = NOTHING,
) -> Traffic:
    """Of a turn of a player of so many elements; `micro_batches` in all; `gathering`: of stage 3."""
    share, each = (workers - 1) / workers, micro_batches // workers
    if not isinstance(engine, DeepSpeedEngineConfig):
        sums = _broadcast_sums(micro_batches, workers) if engine.reduction == "canonical" else 2
        return Traffic(round(share * sums * FLOAT32_BYTES * count), 0)
    itemsize = DTYPES[engine.precision].itemsize
    if zero_stage < 3:
        times = each if zero_stage == 2 else 1
        gathered = count if zero_stage else 0
        return Traffic(round(share * times * 2 * FLOAT32_BYTES * count), round(share * itemsize * gathered))
    gathered = each * gathering.gathered + gathering.small
    return Traffic(round(share * each * FLOAT32_BYTES * count), round(share * itemsize * gathered))


def _broadcast_sums(micro_batches: int, workers: int) -> int:
    """How many sums are broadcast in the canonical reduction: each reaches N - 1 workers, one of whom sends it on."""
    root = range(micro_batches)
    shares = (Group(rank=rank, world_size=workers).share(micro_batches) for rank in range(workers))
    return sum(len(largest_nodes(share, root)) for share in shares)
