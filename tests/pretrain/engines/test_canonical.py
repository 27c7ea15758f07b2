"""With the canonical reduction any number of workers computes the same bits; with the fast one it does not."""

from typing import Any

import pytest
import torch
from torch import Tensor

from pretrain.engines.tree_sum import CanonicalReduction, TreeSum, halves, largest_nodes
from pretrain.group import Group
from tests.pretrain.engines.runs import PRECISIONS, Clipped, Run, local, run
from tests.processes import run_workers

MICRO_BATCHES = 12
STEPS = {"float32": 20, "bfloat16": 8}


def runs(group: Group) -> dict[str, Run]:
    """Transformer-XL with memory and dropout in both precisions, and a game whose weights are changed after turns."""
    canonical = {
        f"transformer_xl, {precision}": run(
            local(reduction="canonical", precision=precision), group, STEPS[precision], micro_batches=MICRO_BATCHES
        )
        for precision in PRECISIONS
    }
    game = run(local(reduction="canonical"), group, 4, model=Clipped, micro_batches=MICRO_BATCHES)
    return canonical | {"game": game, "fast": run(local(), group, 2, micro_batches=MICRO_BATCHES)}


@pytest.fixture(scope="module")
def by_workers() -> dict[int, dict[str, Run]]:
    return {1: runs(Group())} | {world: run_workers(world, runs)[0] for world in (2, 3, 4)}


@pytest.mark.parametrize("workers", [2, 3, 4])
@pytest.mark.parametrize("name", [*(f"transformer_xl, {precision}" for precision in PRECISIONS), "game"])
def test_any_number_of_workers_computes_the_same_bits(
    by_workers: dict[int, dict[str, Run]], name: str, workers: int
) -> None:
    alone, together = by_workers[1][name], by_workers[workers][name]
    assert (together.losses, together.norms) == (alone.losses, alone.norms)
    assert together.sample_ids == alone.sample_ids
    assert different(together, alone) == []
    kinds = {name.split("/")[0] for name in alone.memory.names()}
    assert kinds == {"weights", "exp_avg", "exp_avg_sq"} | ({"buffers"} if name == "game" else {"carry"})


@pytest.mark.parametrize("workers", [2, 3, 4])
def test_the_fast_reduction_does_not(by_workers: dict[int, dict[str, Run]], workers: int) -> None:
    """So the comparison above would see another order of a sum."""
    assert different(by_workers[workers]["fast"], by_workers[1]["fast"])


def different(a: Run, b: Run) -> list[str]:
    assert a.memory.names() == b.memory.names()
    return [name for name in sorted(a.memory.names()) if not same_bits(a.memory.tensors[name], b.memory.tensors[name])]


def same_bits(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8))


def in_one_tree(values: Tensor, node: range) -> Tensor:
    """The definition: a node is the sum of its halves."""
    if len(node) == 1:
        return values[node.start]
    left, right = halves(node)
    return in_one_tree(values, left) + in_one_tree(values, right)


@pytest.mark.parametrize("num_leaves", range(1, 26))
def test_every_number_of_workers_that_divides_finishes_the_same_tree(num_leaves: int) -> None:
    values = torch.randn(num_leaves, 7) * torch.logspace(-4, 4, num_leaves)[:, None]
    expected = in_one_tree(values, range(num_leaves))
    for world in (n for n in range(1, num_leaves + 1) if num_leaves % n == 0):
        whole = TreeSum(range(num_leaves))
        for rank in range(world):
            share = Group(rank, world).share(num_leaves)
            own = TreeSum(range(num_leaves))
            for leaf in share:
                own.add(range(leaf, leaf + 1), values[leaf].clone())
                assert len(own.nodes) <= 2 * num_leaves.bit_length()
            assert [node for node, _ in own.nodes] == largest_nodes(share, range(num_leaves))
            for node, value in own.nodes:
                whole.add(node, value)
        ((node, total),) = whole.nodes
        assert node == range(num_leaves)
        assert same_bits(total, expected)


def test_a_micro_batch_that_is_missing_is_no_sum() -> None:
    reduction = CanonicalReduction(3, Group())
    gradient: Any = torch.ones(2)
    reduction.add(gradient.clone())
    reduction.add(gradient.clone())
    with pytest.raises(ValueError, match="2 of 3 micro-batches"):
        reduction.total()
