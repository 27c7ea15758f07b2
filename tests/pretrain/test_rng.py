"""Seeds are a function of the place, the same in every process, and differ between places."""

import itertools

import torch

from pretrain.rng import seed_at, seed_everything


def test_places_have_seeds_of_their_own() -> None:
    seeds = {seed_at(0, *path) for path in itertools.product(range(8), range(3), range(8))}
    assert len(seeds) == 8 * 3 * 8
    assert seed_at(1, 23) != seed_at(12, 3), "the parts of a path are kept apart"
    assert seed_at(0, 1) != seed_at(0, "1"), "a name is not a number"
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_seed_never_changes() -> None:
    """Written down once: another value would make every saved run resume with other noise."""
    assert seed_at(7, 3, 0, 2) == 2956925295963116041


def test_seed_everything_fixes_what_is_drawn() -> None:
    seed_everything(3, 5)
    first = torch.rand(4)
    torch.rand(100)
    seed_everything(3, 5)
    assert torch.equal(torch.rand(4), first)
