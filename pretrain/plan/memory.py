"""Memory of one worker: by part, at the moment of a step at which it holds most; and in all, while it starts."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from pretrain.engines import LocalEngineConfig
from pretrain.plan.moments import FLOAT32_BYTES, Place, Player, moments


@dataclass(frozen=True, slots=True)
class WorkerMemory:
    """Bytes of one worker at its fullest moment, by part."""

    weights: int
    """ZeRO stage 3: the shares of all; those that are whole for a while are working memory."""
    gradients: int
    """Summed over micro-batches, in float32, as far as they are complete."""
    optimizer: int
    """Moments, and float32 masters where there are any."""
    activations: int
    """Kept by one micro-batch's forward for its backward."""
    working: int
    """What the operation in hand needs beside them: gradients of activations, those of a weight before they are added
    up, a block's recomputation, weights that stage 3 has gathered."""
    carry: int
    """Of all the worker's micro-batches, before and after a turn."""
    communication: int
    """Buffers in which gradients travel."""
    saving: int
    """The leader's copy of what it saves, in the memory of the host, where saves go on in the background."""

    @property
    def total(self) -> int:
        return sum(asdict(self).values())

    @property
    def on_device(self) -> int:
        """Without what lies in the memory of an accelerator's host."""
        return self.total - self.saving


def fullest(resting: WorkerMemory, place: Place, players: Sequence[Player]) -> WorkerMemory:
    """What always is there, and what comes and goes at the fullest moment of any player's turn."""
    every = sum(player.count for player in players)
    found = (moment for player in players for moment in moments(place, player, every))
    return replace(resting, **asdict(max(found, key=lambda moment: moment.total)))


def starting(place: Place, count: int) -> int:
    """Bytes while the engine is built of a model of so many elements, which every worker has whole, in float32.

    In bfloat16 a second copy is kept until the masters are made of it. DeepSpeed copies the weights into one tensor,
    and makes masters, and gradients of what it does not cut.
    """
    whole, share, itemsize = FLOAT32_BYTES * count, FLOAT32_BYTES * place.share(count), place.itemsize
    copies = whole if itemsize != FLOAT32_BYTES else 0
    if isinstance(place.engine, LocalEngineConfig) or place.zero_stage == 0:
        return whole + copies
    if place.zero_stage == 3:
        return max(whole + copies, copies + itemsize * place.share(count) + 2 * share)
    gradients = whole if place.zero_stage == 1 and copies else share
    return max(2 * whole, copies + itemsize * count + share + gradients)
