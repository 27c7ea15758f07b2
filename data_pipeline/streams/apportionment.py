"""Which source each row of a mixture comes from, and how many came from each before it: by arithmetic, without state.

Sources are the leaves of a balanced binary tree. Where a node has numbers p and q for its two sides, the first x of its
rows have floor((p x + o) / (p + q)) on the left: row x goes left exactly where that count grows at x + 1. So counts are
exact at any row in O(log sources), whole numbers all the way, and no further than ceil(log2 sources) from their shares:
a node adds less than 1 to a distance that its share has made smaller. The offset o in range(p + q) is drawn from the
seed, so that runs differ in which source begins.

Legend: N rows asked for, S sources.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from data_pipeline.mixing import keys

LARGEST = 10**6
"""Of the whole numbers that stand for the weights."""


def whole_numbers(weights: Mapping[str, float]) -> dict[str, int]:
    """The smallest whole numbers in the proportion of the weights, of sources that have any, in alphabetical order.

    ValueError where there is none, or their sum is beyond `LARGEST`.

    >>> whole_numbers({"b": 0.3, "a": 0.7, "c": 0})
    {'a': 7, 'b': 3}
    """
    exact = {name: Fraction(str(weight)) for name, weight in sorted(weights.items()) if weight}
    if not exact:
        raise ValueError("all weights are 0; give at least one source some")
    scale = math.lcm(*(weight.denominator for weight in exact.values()))
    numbers = {name: int(weight * scale) for name, weight in exact.items()}
    divisor = math.gcd(*numbers.values())
    numbers = {name: number // divisor for name, number in numbers.items()}
    total = sum(numbers.values())
    if total > LARGEST:
        raise ValueError(f"weights need whole numbers of sum {total}; round them to five digits or fewer")
    return numbers


@dataclass(frozen=True, slots=True)
class Node:
    """Two or more sources."""

    left: "Node | int"
    right: "Node | int"
    """A source's number, where it is alone."""
    left_share: int
    share: int
    offset: int

    def lefts(self, rows_N: np.ndarray) -> np.ndarray:
        """How many of the first x rows are of the left side, for each x: by whole rounds of `share` rows, so that no
        product is beyond 2**63."""
        rounds_N, rest_N = np.divmod(rows_N, self.share)
        found: np.ndarray = rounds_N * self.left_share + (rest_N * self.left_share + self.offset) // self.share
        return found


class Apportionment:
    """One set of weights, from some row on."""

    def __init__(self, numbers: Mapping[str, int], names: Sequence[str], seed: int | None) -> None:
        """`numbers` as from `whole_numbers`; `names` are all sources, whose places in it are their numbers. Without a
        seed, counts are rounded to the nearest."""
        self.num_sources = len(names)
        leaves = [(names.index(name), number) for name, number in numbers.items()]
        self._root = _tree(leaves, seed, "mixture")

    def counts(self, rows: int) -> np.ndarray:
        """[S] int64: how many of the first `rows` rows each source has."""
        found = np.zeros(self.num_sources, dtype=np.int64)
        self._count(self._root, rows, found)
        return found

    def place(self, rows_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """[N] each: the source of each row, and how many rows that source has before it."""
        source_N, number_N = np.empty_like(rows_N), np.empty_like(rows_N)
        self._route(self._root, rows_N, np.arange(len(rows_N)), source_N, number_N)
        return source_N, number_N

    def _count(self, node: Node | int, rows: int, found: np.ndarray) -> None:
        if isinstance(node, int):
            found[node] = rows
            return
        lefts = (rows * node.left_share + node.offset) // node.share
        self._count(node.left, lefts, found)
        self._count(node.right, rows - lefts, found)

    def _route(
        self, node: Node | int, rows: np.ndarray, where: np.ndarray, source_N: np.ndarray, number_N: np.ndarray
    ) -> None:
        if isinstance(node, int):
            source_N[where], number_N[where] = node, rows
            return
        lefts = node.lefts(rows)
        is_left = node.lefts(rows + 1) > lefts
        self._route(node.left, lefts[is_left], where[is_left], source_N, number_N)
        self._route(node.right, (rows - lefts)[~is_left], where[~is_left], source_N, number_N)


def _tree(leaves: list[tuple[int, int]], seed: int | None, path: str) -> Node | int:
    if len(leaves) == 1:
        return leaves[0][0]
    middle = len(leaves) // 2
    left_share, share = sum(number for _, number in leaves[:middle]), sum(number for _, number in leaves)
    return Node(
        left=_tree(leaves[:middle], seed, f"{path}0"),
        right=_tree(leaves[middle:], seed, f"{path}1"),
        left_share=left_share,
        share=share,
        offset=share // 2 if seed is None else int(keys(1, seed, path)[0] % np.uint64(share)),
    )


@dataclass(frozen=True, slots=True)
class Stage:
    """Weights that hold from a row on."""

    first_row: int
    before: np.ndarray
    """[S] int64: rows of each source before it."""
    apportionment: Apportionment


class Schedule:
    """Weights that change at certain rows; each source goes on where it was."""

    def __init__(self, stages: Sequence[tuple[int, Mapping[str, int]]], names: Sequence[str], seed: int) -> None:
        """Stages are (first row, whole numbers), the first at row 0, in their order."""
        self._stages: list[Stage] = []
        for first_row, numbers in stages:
            before = self.counts(first_row) if self._stages else np.zeros(len(names), dtype=np.int64)
            self._stages.append(Stage(first_row, before, Apportionment(numbers, names, seed)))
        self._firsts = np.array([stage.first_row for stage in self._stages])

    def counts(self, rows: int) -> np.ndarray:
        """[S] int64: how many of the first `rows` rows each source has."""
        stage = [one for one in self._stages if one.first_row <= rows][-1]
        counted: np.ndarray = stage.before + stage.apportionment.counts(rows - stage.first_row)
        return counted

    def place(self, rows_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """[N] each: the source of each row, and its number among the rows of that source."""
        source_N, number_N = np.empty_like(rows_N), np.empty_like(rows_N)
        stage_N = np.searchsorted(self._firsts, rows_N, side="right") - 1
        for number in np.unique(stage_N):
            stage, here = self._stages[number], stage_N == number
            source_N[here], within = stage.apportionment.place(rows_N[here] - stage.first_row)
            number_N[here] = stage.before[source_N[here]] + within
        return source_N, number_N
