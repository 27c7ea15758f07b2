"""What is asked of a model, in tokens: how likely is this continuation after this context?

Shape legend: C tokens of a context, T tokens of a continuation.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """One continuation after one context; neither is empty."""

    context: np.ndarray
    """[C] int64: what fits is read, and all of it is seen by every token of the continuation."""
    continuation: np.ndarray
    """[T] int64."""
    barred: frozenset[int] = frozenset()
    """Ids that the likeliest first token may not be, where a task says so."""
    running: bool = False
    """A part of running text: only its nats are asked for, and it is read from its context's beginning."""

    @property
    def num_read(self) -> int:
        """Tokens that a model reads: all but the last."""
        return len(self.context) + len(self.continuation) - 1


@dataclass(frozen=True, slots=True, eq=False)
class ItemScore:
    """What a model says of an item."""

    nats: np.ndarray
    """[T] float64: -log p of each token of the continuation."""
    greedy: np.ndarray
    """[T] bool: whether it is the likeliest; among equals the lowest id is. All false for running text."""
    greedy_barred: bool
    """Whether the first token is the likeliest of those that are not barred."""

    @property
    def total(self) -> float:
        return float(self.nats.sum())


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Items of one context, which is read once."""

    context: np.ndarray
    items: tuple[Item, ...]

    @property
    def num_read(self) -> int:
        return len(self.context) + sum(len(item.continuation) - 1 for item in self.items)


@dataclass(frozen=True, slots=True)
class Segments:
    """How a model with memory reads."""

    length: int
    """Tokens at a time."""
    warm_up: int
    """Tokens, a whole number of segments: what was read before them makes no difference after them."""


class TokenModel(Protocol):
    """A back end: a model that scores items."""

    vocab_size: int

    @property
    def max_length(self) -> int | None:
        """Tokens that it can read at a time; None where memory carries on."""

    @property
    def segments(self) -> Segments | None:
        """Of a model with memory that forgets."""

    def score(self, groups: Sequence[Group]) -> list[list[ItemScore]]:
        """Of a batch, by group and item. A score depends on its batch only by the rounding of float32."""

    def identity(self) -> dict[str, Any]:
        """What computes: kind, weights' hash, dtype, lengths; plain values."""


SHARED_TOKENS = 2048
"""Of continuations in one row: its cost grows with the square."""
BATCH_TOKENS = 1 << 15
"""Read by a batch of several groups at most: long ones are kept, shown and shared out in smaller pieces."""


def group_items(items: Sequence[Item], owners: Sequence[int]) -> tuple[list[Group], list[list[int]]]:
    """Items of one owner with equal contexts together, in the order of their first; and the places of each group's.

    A context of one token is never shared, as reading it once would save nothing; nor do continuations of more than
    `SHARED_TOKENS` share a row.
    """
    open_rows: dict[tuple[int, bytes], list[int]] = {}
    room: dict[tuple[int, bytes], int] = {}
    places: list[list[int]] = []
    for place, (item, owner) in enumerate(zip(items, owners, strict=True)):
        if item.running:
            places.append([place])
            continue
        key = (owner, item.context.tobytes())
        size = len(item.continuation)
        if len(item.context) == 1 or room.get(key, 0) < size:
            open_rows[key], room[key] = [], SHARED_TOKENS
            places.append(open_rows[key])
        open_rows[key].append(place)
        room[key] -= size
    groups = [Group(items[own[0]].context, tuple(items[place] for place in own)) for own in places]
    return groups, places


def score_items(model: TokenModel, items: Sequence[Item], rows: int) -> list[ItemScore]:
    """Of each item, in the order given; contexts that several share are read once."""
    groups, places = group_items(items, [0] * len(items))
    found: dict[int, ItemScore] = {}
    for batch in batches_of(groups, rows):
        for group, scores in zip(batch, model.score([groups[place] for place in batch]), strict=True):
            found |= dict(zip(places[group], scores, strict=True))
    return [found[place] for place in range(len(items))]


def batches_of(groups: Sequence[Group], rows: int) -> list[list[int]]:
    """The groups' places in batches of at most `rows`, of similar length, longest first: a function of the groups."""
    order = sorted(range(len(groups)), key=lambda place: (-groups[place].num_read, place))
    found: list[list[int]] = []
    for place in order:
        full = not found or len(found[-1]) == rows
        if full or (len(found[-1]) + 1) * groups[found[-1][0]].num_read > BATCH_TOKENS:
            found.append([])
        found[-1].append(place)
    return found
