"""What the checkpoint tests save: tensors of every kind, cut at random among workers that are threads."""

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pretrain.checkpoint import Description, Phase, Piece, save
from pretrain.group import Group

DESCRIPTION = Description(
    counters={"step": 100, "draws": 2**40},
    scalars={"optimizer_steps": 7, "loss_scale": 0.1},
    experiment={"model": {"kind": "transformer_xl", "depth": 2}, "name": "naïve"},
    data_fingerprint={"shards": "abc"},
    probe={"draw": 0, "micro_batch": 0, "nats": 1.25},
    skipped=[(3, 5), (9, 9)],
    losses={"model": [0.1, 1e-310, 3.0000000000000004]},
)


def tensors(seed: int = 0) -> dict[str, Tensor]:
    """One of each: floats with odd bit patterns, integers, booleans, a scalar, one without elements."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(7, 5, generator=generator)
    weights[0, :4] = torch.tensor([float("nan"), float("inf"), -0.0, 1e-42])
    return {
        "weights/layers.0.w_BLD": weights,
        "exp_avg/layers.0.w_BLD": torch.randn(7, 5, generator=generator).bfloat16(),
        "carry/memory-1": torch.rand(6, 4, 2, generator=generator) < 0.5,
        "carry/position": torch.randint(-(2**62), 2**62, (6,), generator=generator),
        "buffers/count": torch.tensor(seed),
        "buffers/none": torch.zeros(0, 3),
    }


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Whether dtype, shape and every bit are equal, NaN or not."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return torch.equal(a.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8))


def cut(whole: dict[str, Tensor], num_workers: int, chance: random.Random) -> list[list[Piece]]:
    """Every tensor in random ranges, some of them empty, each range with a random worker."""
    shares: list[list[Piece]] = [[] for _ in range(num_workers)]
    for name, tensor in whole.items():
        inner = [chance.randint(0, tensor.numel()) for _ in range(chance.randint(0, 5))]
        for start, end in pairwise(sorted([0, *inner, tensor.numel()])):
            piece = Piece(name, tuple(tensor.shape), start, tensor.reshape(-1)[start:end])
            chance.choice(shares).append(piece)
    for share in shares:
        chance.shuffle(share)
    return shares


@dataclass
class Meeting:
    """Where threads that stand for workers exchange values."""

    num_workers: int
    values: list[Any] = field(init=False)
    barrier: threading.Barrier = field(init=False)

    def __post_init__(self) -> None:
        self.values, self.barrier = [None] * self.num_workers, threading.Barrier(self.num_workers, timeout=30)


@dataclass(frozen=True)
class ThreadGroup(Group):
    """A group of threads of this process."""

    meeting: Meeting = field(default_factory=lambda: Meeting(1))

    def gather(self, value: Any) -> list[Any]:
        self.meeting.values[self.rank] = value
        self.meeting.barrier.wait()
        gathered = list(self.meeting.values)
        self.meeting.barrier.wait()
        return gathered

    def gather_to_leader(self, value: Any) -> list[Any]:
        gathered = self.gather(value)
        return gathered if self.leads else []

    def tell(self, value: Any) -> Any:
        return self.gather(value)[0]


def together(num_workers: int, work: Callable[[ThreadGroup], Any]) -> list[Any]:
    """What each worker's work returned or raised, by rank."""
    meeting = Meeting(num_workers)

    def worker(rank: int) -> Any:
        try:
            return work(ThreadGroup(rank=rank, world_size=num_workers, meeting=meeting))
        except Exception as error:
            return error

    with ThreadPoolExecutor(num_workers) as pool:
        return list(pool.map(worker, range(num_workers)))


def save_shares(
    run: Path,
    step: int,
    shares: list[list[Piece]],
    *,
    description: Description = DESCRIPTION,
    keep: int | None = None,
    phase: Callable[[int, Phase], None] = lambda rank, phase: None,
) -> list[Any]:
    """Save with one worker for each share; what each returned or raised."""

    def work(group: ThreadGroup) -> Path:
        return save(
            run,
            step=step,
            pieces=iter(shares[group.rank]),
            description=description,
            group=group,
            keep=keep,
            phase=lambda name: phase(group.rank, name),
        )

    return together(len(shares), work)


def saved(run: Path, step: int, *, num_workers: int = 1, whole: dict[str, Tensor] | None = None) -> Path:
    """A good checkpoint, cut by the step's chance; its directory."""
    shares = cut(tensors(step) if whole is None else whole, num_workers, random.Random(step))
    path = save_shares(run, step, shares)[0]
    assert isinstance(path, Path), path
    return path
