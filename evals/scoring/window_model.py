"""Items under a model that reads rows of at most so many tokens, each in one pass.

A group is one row: its context, then the continuations one after another, each of which sees the context and itself, at
the positions that it would have alone. So a shared context is read once. Only the positions that predict a token of a
continuation go through the output layer.

Shape legend: R rows, L positions of a row, N scored positions, W model width, V vocabulary.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from evals.scoring.item import Group, Item, ItemScore

ROWS_OF_LOGITS = 256
"""Scored positions whose logits are held at once."""


class Network(Protocol):
    """What the back ends differ in."""

    vocab_size: int
    max_length: int
    device: torch.device

    def hidden(self, tokens_RL: Tensor, positions_RL: Tensor | None, masked_R1LL: Tensor | None) -> Tensor:
        """[R, L, W] what goes into the output layer. None: positions in order, and the future masked."""

    def logits(self, hidden_NW: Tensor) -> Tensor:
        """[N, V] float32."""

    def identity(self) -> dict[str, Any]: ...


class WindowModel:
    """A `TokenModel` of a network."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.vocab_size = network.vocab_size
        self.max_length: int | None = network.max_length

    def identity(self) -> dict[str, Any]:
        return self.network.identity()

    @torch.no_grad()
    def score(self, groups: Sequence[Group]) -> list[list[ItemScore]]:
        rows = [_Row(group) for group in groups]
        length = max(len(row.tokens) for row in rows)
        tokens_RL = torch.from_numpy(np.stack([_padded(row.tokens, length) for row in rows])).to(self.network.device)
        positions_RL = masked_R1LL = None
        if any(row.branches for row in rows):
            positions_RL = torch.from_numpy(np.stack([_padded(row.positions, length) for row in rows]))
            branch_RL = np.stack([_padded(row.branch, length) for row in rows])
            masked_R1LL = torch.from_numpy(_hidden_from_each_other(branch_RL)).to(self.network.device)
            positions_RL = positions_RL.to(self.network.device)
        hidden_RLW = self.network.hidden(tokens_RL, positions_RL, masked_R1LL)
        row_N = np.concatenate([np.full(len(row.scored), place) for place, row in enumerate(rows)])
        column_N = np.concatenate([row.scored for row in rows])
        scored_NW = hidden_RLW[torch.from_numpy(row_N), torch.from_numpy(column_N)]
        items = [item for group in groups for item in group.items]
        found = iter(score_hidden(self.network.logits, scored_NW, items))
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


def _hidden_from_each_other(branch_RL: np.ndarray) -> np.ndarray:
    """[R, 1, L, L] bool, true where a key must not be seen: the future, and other continuations."""
    length = branch_RL.shape[1]
    future_LL = np.triu(np.ones((length, length), dtype=bool), 1)
    key_R1L, query_RL1 = branch_RL[:, None, :], branch_RL[:, :, None]
    masked_RLL: np.ndarray = future_LL | ((key_R1L != 0) & (key_R1L != query_RL1))
    return masked_RLL[:, None]


def score_hidden(logits: Any, hidden_NW: Tensor, items: Sequence[Item]) -> list[ItemScore]:
    """The scores of items whose scored positions stand in `hidden_NW` one after another."""
    label_N = np.concatenate([item.continuation for item in items])
    ends = np.cumsum([len(item.continuation) for item in items])
    starts = ends - [len(item.continuation) for item in items]
    barred = {int(start): item for start, item in zip(starts, items, strict=True) if item.barred}
    nats_N, greedy_N = np.empty(len(label_N)), np.empty(len(label_N), dtype=bool)
    barred_N = greedy_N.copy()
    for first in range(0, len(label_N), ROWS_OF_LOGITS):
        part = slice(first, min(first + ROWS_OF_LOGITS, len(label_N)))
        logits_NV = logits(hidden_NW[part])
        label = torch.from_numpy(label_N[part]).to(logits_NV.device)
        own = logits_NV.gather(1, label[:, None])[:, 0]
        nats_N[part] = (logits_NV.logsumexp(1) - own).double().cpu().numpy()
        greedy_N[part] = barred_N[part] = (logits_NV.argmax(1) == label).cpu().numpy()
        for place in range(part.start, part.stop):
            if place in barred:
                allowed_V = logits_NV[place - first].clone()
                allowed_V[sorted(barred[place].barred)] = -torch.inf
                barred_N[place] = int(allowed_V.argmax()) == label_N[place]
    return [
        ItemScore(nats_N[start:end], greedy_N[start:end], bool(barred_N[start]))
        for start, end in zip(starts, ends, strict=True)
    ]
