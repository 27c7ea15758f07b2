"""Randomness as a pure function of where it is drawn.

Every random number of a run comes from a generator seeded by `seed_at(run seed, step, turn, micro-batch)`, so that it
depends neither on how many workers compute the run nor on how often it was restarted.
"""

import hashlib

import torch

INITIAL_WEIGHTS = "initial weights"
INITIAL_CARRY = "initial carry"


def seed_at(seed: int, *path: int | str) -> int:
    """A 63-bit seed for one place in a run: equal paths give equal seeds, others are independent (BLAKE2b)."""
    text = "/".join(f"{type(part).__name__[0]}{part}" for part in (seed, *path))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def seed_everything(seed: int, *path: int | str) -> None:
    """Seed torch's default generators (CPU and every accelerator) for one place in a run."""
    torch.manual_seed(seed_at(seed, *path))
