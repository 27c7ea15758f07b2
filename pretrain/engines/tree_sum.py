"""The canonical sum: one fixed binary tree over the micro-batches, whoever computes them.

A sum in floating point depends on its order. Here the order follows from the number G of micro-batches alone: the
range 0 : G is halved, each half again, and a node is the sum of its left half and its right half. A worker has a
contiguous share of the leaves; it adds up the largest nodes that lie in it whole, these travel, and every worker
finishes the tree in the same order. So 1, 2, 3 or 4 workers get the same bits.
"""

from dataclasses import replace

import torch
from torch import Tensor

from pretrain.group import Group


def halves(node: range) -> tuple[range, range]:
    """The two children of a node of at least two leaves."""
    middle = (node.start + node.stop) // 2
    return range(node.start, middle), range(middle, node.stop)


def largest_nodes(share: range, node: range) -> list[range]:
    """The largest nodes under `node` that lie in the share whole, from left to right; they cover its part of it."""
    if share.start <= node.start and node.stop <= share.stop:
        return [node]
    if node.stop <= share.start or share.stop <= node.start:
        return []
    left, right = halves(node)
    return largest_nodes(share, left) + largest_nodes(share, right)


def are_siblings(left: range, right: range, root: range) -> bool:
    """Whether the two are the children of one node of the tree under `root`."""
    while len(root) > 1:
        first, second = halves(root)
        if (left, right) == (first, second):
            return True
        root = first if right.stop <= first.stop else second
    return False


class TreeSum:
    """Adds tensors up as they come from left to right; holds at most one for each level of the tree and share's end."""

    def __init__(self, root: range) -> None:
        self.root = root
        self.nodes: list[tuple[range, Tensor]] = []
        """Sums of nodes that still wait for their siblings."""

    def add(self, node: range, value: Tensor) -> None:
        """The sum of a node, next to the right of what came before; taken over and changed in place."""
        while self.nodes and are_siblings(self.nodes[-1][0], node, self.root):
            left, total = self.nodes.pop()
            node, value = range(left.start, node.stop), total.add_(value)
        self.nodes.append((node, value))


class CanonicalReduction:
    """The gradients of one turn: this worker's micro-batches one by one, then all workers' sums."""

    def __init__(self, micro_batches: int, group: Group) -> None:
        self.group, self.root = group, range(micro_batches)
        self.share = group.share(micro_batches)
        self.begin()

    def begin(self) -> None:
        """Forget what was added."""
        self.next = self.share.start
        self.own = TreeSum(self.root)

    def add(self, gradient: Tensor) -> None:
        """[n] float32, of this worker's next micro-batch."""
        self.own.add(range(self.next, self.next + 1), gradient)
        self.next += 1

    def total(self) -> Tensor:
        """[n]: the sum over all micro-batches; collective. Every node that a worker holds is sent by itself."""
        if self.next != self.share.stop:
            raise ValueError(f"{self.next - self.share.start} of {len(self.share)} micro-batches have a gradient")
        whole = TreeSum(self.root)
        own = dict(self.own.nodes)
        shape = self.own.nodes[0][1]
        self.begin()
        for rank in range(self.group.world_size):
            for node in largest_nodes(replace(self.group, rank=rank).share(len(self.root)), self.root):
                value = own.pop(node) if rank == self.group.rank else torch.empty_like(shape)
                whole.add(node, self.group.broadcast(value, source=rank))
        ((_, total),) = whole.nodes
        return total
