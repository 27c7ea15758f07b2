"""Items under a model that reads rows of at most so many tokens, each in one pass.

A group is one row: its context, then the continuations one after another, each of which sees the context and itself, at
the positions that it would have alone. So a shared context is read once. Only the positions that predict a token of a
continuation go through the output layer.

Shape legend: R rows, L positions of a row, N scored positions, W model width.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from evals.scoring.item import Group, ItemScore
from evals.scoring.output_layer import OutputLayer, score_hidden


class Network(Protocol):
    """What the back ends differ in."""

    output: OutputLayer
    max_length: int
    device: torch.device
    shares_contexts: bool
    """Whether positions and mask of ours are obeyed; else `None` is given for them."""
    rows_alone: bool
    """Whether a row's numbers depend on the length of others, so that each is computed alone."""

    def hidden(self, tokens_RL: Tensor, positions_RL: Tensor | None, masked_R1LL: Tensor | None) -> Tensor:
        """[R, L, W] what goes into the output layer. None: positions in order, and the future masked."""

    def identity(self) -> dict[str, Any]: ...


class WindowModel:
    """A `TokenModel` of a network."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.vocab_size = network.output.vocab_size
        self.max_length: int | None = network.max_length
        self.segments = None

    def identity(self) -> dict[str, Any]:
        return self.network.identity()

    @torch.no_grad()
    def score(self, groups: Sequence[Group]) -> list[list[ItemScore]]:
        if self.network.shares_contexts:
            return self._score_rows(groups)
        alone = [Group(group.context, (item,)) for group in groups for item in group.items]
        found: list[ItemScore] = []
        rows = 1 if self.network.rows_alone else len(groups)
        for first in range(0, len(alone), rows):
            found += [scores[0] for scores in self._score_rows(alone[first : first + rows])]
        left = iter(found)
        return [[next(left) for _ in group.items] for group in groups]

    def _score_rows(self, groups: Sequence[Group]) -> list[list[ItemScore]]:
        rows = [_Row(group) for group in groups]
        length = max(len(row.tokens) for row in rows)
        tokens_RL = torch.from_numpy(np.stack([_padded(row.tokens, length) for row in rows])).to(self.network.device)
        positions_RL = masked_R1LL = None
        if any(row.branches for row in rows):
            positions_RL = torch.from_numpy(np.stack([_padded(row.positions, length) for row in rows]))
            branch_RL = np.stack([_padded(row.branch, length) for row in rows])
            masked_R1LL = torch.from_numpy(hidden_from_each_other(branch_RL)).to(self.network.device)
            positions_RL = positions_RL.to(self.network.device)
        hidden_RLW = self.network.hidden(tokens_RL, positions_RL, masked_R1LL)
        row_N = np.concatenate([np.full(len(row.scored), place) for place, row in enumerate(rows)])
        column_N = np.concatenate([row.scored for row in rows])
        scored_NW = hidden_RLW[torch.from_numpy(row_N), torch.from_numpy(column_N)]
        items = [item for group in groups for item in group.items]
        found = iter(score_hidden(self.network.output, scored_NW, items))
        return [[next(found) for _ in group.items] for group in groups]


class _Row:
    """A group as one row."""

    def __init__(self, group: Group) -> None:
        size = len(group.context)
        inner = [item.continuation[:-1] for item in group.items]
        self.branches = sum(len(part) > 0 for part in inner) > 1
        self.tokens = np.concatenate([group.context, *inner])
        self.positions = np.concatenate([np.arange(size), *(np.arange(size, size + len(part)) for part in inner)])
        numbered = (np.full(len(part), place) for place, part in enumerate(inner, start=1))
        self.branch = np.concatenate([np.zeros(size, dtype=np.int64), *numbered])
        """0 for the context, k for continuation k."""
        starts = size + np.concatenate([[0], np.cumsum([len(part) for part in inner])])
        predicts = [[size - 1, *range(start, start + len(part))] for start, part in zip(starts, inner, strict=False)]
        self.scored = np.concatenate([np.array(part, dtype=np.int64) for part in predicts])
        """Positions whose next token is scored, item after item."""


def _padded(values: np.ndarray, length: int) -> np.ndarray:
    return np.pad(values.astype(np.int64), (0, length - len(values)))


def hidden_from_each_other(branch_RL: np.ndarray) -> np.ndarray:
    """[R, 1, L, L] bool, true where a key must not be seen: the future, and other continuations."""
    length = branch_RL.shape[1]
    future_LL = np.triu(np.ones((length, length), dtype=bool), 1)
    key_R1L, query_RL1 = branch_RL[:, None, :], branch_RL[:, :, None]
    masked_RLL: np.ndarray = future_LL | ((key_R1L != 0) & (key_R1L != query_RL1))
    return masked_RLL[:, None]
