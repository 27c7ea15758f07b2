"""Monotone stop processes by enumeration, slowly and in plain Python: what the attentions are compared with.

A path has for each target position where it stopped, from 0, or None once it has run past the end.

Shape legend: T target positions, S source positions.
"""

import math
import random
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

Path = tuple[int | None, ...]


def paths(p_TS: list[list[float]]) -> Iterator[tuple[Path, float]]:
    """Every path and its probability; they sum to 1."""

    def walk(i: int, start: int | None, path: Path, chance: float) -> Iterator[tuple[Path, float]]:
        if i == len(p_TS):
            yield path, chance
            return
        if start is None:
            yield from walk(i + 1, None, (*path, None), chance)
            return
        passed = chance
        for j in range(start, len(p_TS[i])):
            yield from walk(i + 1, j, (*path, j), passed * p_TS[i][j])
            passed *= 1 - p_TS[i][j]
        yield from walk(i + 1, None, (*path, None), passed)

    yield from walk(0, 0, (), 1.0)


def enumerated(p_TS: Tensor, read: Callable[[int, int], list[float]]) -> Tensor:
    """[T, S] the mean over all paths of what each target position reads: read(i, k) of one that stops at k."""
    total_TS = torch.zeros_like(p_TS)
    for path, chance in paths(p_TS.tolist()):
        for i, stop in enumerate(path):
            if stop is not None:
                total_TS[i] += chance * torch.tensor(read(i, stop), dtype=p_TS.dtype)
    return total_TS


def one_position(num_sources: int) -> Callable[[int, int], list[float]]:
    return lambda i, k: [float(j == k) for j in range(num_sources)]


def softmax_of_last(u_TS: Tensor, width: int) -> Callable[[int, int], list[float]]:
    """Soft attention over at most `width` positions that end at k, with a maximum of their own."""

    def read(i: int, k: int) -> list[float]:
        row = u_TS[i].tolist()
        first = max(0, k - width + 1)
        most = max(row[first : k + 1])
        weights = [math.exp(u - most) if first <= j <= k else 0.0 for j, u in enumerate(row)]
        return [weight / math.fsum(weights) for weight in weights]

    return read


def drawn(p_TS: list[list[float]], draw: random.Random) -> Path:
    """One path of the process."""
    at: int | None = 0
    path: list[int | None] = []
    for row in p_TS:
        at = None if at is None else next((j for j in range(at, len(row)) if draw.random() < row[j]), None)
        path.append(at)
    return tuple(path)
