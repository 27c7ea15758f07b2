"""Items under a model whose memory carries on: read segment after segment, nothing is recomputed.

Running text starts with empty memory and is read in segments from its beginning. The context of a request is read in
segments that end where it ends, and its memory is handed to each of its continuations. So how an item is cut depends
on the item alone, neither on its batch nor on what shares its context.

Shape legend: R rows, L positions of a segment, W model width, N scored positions.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from evals.scoring.item import Group, Item, ItemScore, Segments
from evals.scoring.output_layer import POSITIONS, OutputLayer, score_positions
from pretrain.contract import Carry


class RecurrentNetwork(Protocol):
    """A network with a memory of a fixed length for each row."""

    output: OutputLayer
    device: torch.device

    def empty(self, rows: int) -> Carry: ...

    def hidden(self, tokens_RL: Tensor, age_RL: Tensor, carry: Carry) -> tuple[Tensor, Carry]:
        """[R, L, W] what goes into the output layer, and the memory after; a position sees `age` positions back."""

    def warm_up(self, segment_length: int) -> int:
        """Segments of this length before which nothing makes a difference to a position."""

    def identity(self) -> dict[str, Any]: ...


class MemoryModel:
    """A `TokenModel` of a recurrent network, which reads `segment_length` tokens at a time."""

    max_length: int | None = None

    def __init__(self, network: RecurrentNetwork, segment_length: int) -> None:
        self.network, self.segment_length = network, segment_length
        self.vocab_size = network.output.vocab_size
        self.segments = Segments(segment_length, network.warm_up(segment_length) * segment_length)

    def identity(self) -> dict[str, Any]:
        return self.network.identity() | {"target_length": self.segment_length}

    @torch.no_grad()
    def score(self, groups: Sequence[Group]) -> list[list[ItemScore]]:
        alone = [group for group in groups if group.items[0].running]
        shared = [group for group in groups if not group.items[0].running]
        found = {id(group): scores for group, scores in zip(alone, self._score_alone(alone), strict=True)}
        found |= {id(group): scores for group, scores in zip(shared, self._score_shared(shared), strict=True)}
        return [found[id(group)] for group in groups]

    def _score_alone(self, groups: Sequence[Group]) -> list[list[ItemScore]]:
        items = [group.items[0] for group in groups]
        rows = [np.concatenate([item.context, item.continuation[:-1]]) for item in items]
        skipped = [len(item.context) - 1 for item in items]
        return [[score] for score in self._read(rows, skipped, items, self.network.empty(len(items)), 0)]

    def _score_shared(self, groups: Sequence[Group]) -> list[list[ItemScore]]:
        if not groups:
            return []
        before = [group.context[:-1] for group in groups]
        carry = self._read_to_the_end(before)
        row_of = [row for row, group in enumerate(groups) for _ in group.items]
        items = [item for group in groups for item in group.items]
        longest_first = sorted(range(len(items)), key=lambda place: (-len(items[place].continuation), place))
        found: dict[int, ItemScore] = {}
        for first in range(0, len(items), len(groups)):  # as many memories at a time as there are contexts
            places = longest_first[first : first + len(groups)]
            own, chosen = [row_of[place] for place in places], [items[place] for place in places]
            each = {name: value[torch.tensor(own, device=self.network.device)] for name, value in carry.items()}
            rows = [np.concatenate([item.context[-1:], item.continuation[:-1]]) for item in chosen]
            seen = np.array([len(before[row]) for row in own])
            found |= dict(zip(places, self._read(rows, [0] * len(rows), chosen, each, seen), strict=True))
        left = iter(found[place] for place in range(len(items)))
        return [[next(left) for _ in group.items] for group in groups]

    def _read_to_the_end(self, rows: Sequence[np.ndarray]) -> Carry:
        """The memory after rows that all end together: what stands before a row's beginning is never seen."""
        length = self.segment_length
        longest = -(-max(len(row) for row in rows) // length) * length
        tokens_RL = np.stack([np.pad(row, (longest - len(row), 0)) for row in rows])
        starts_R1 = np.array([longest - len(row) for row in rows])[:, None]
        carry = self.network.empty(len(rows))
        for offset in range(0, longest, length):
            age_RL = np.maximum(np.arange(offset, offset + length) - starts_R1, 0)
            _, carry = self._hidden(tokens_RL[:, offset : offset + length], age_RL, carry)
        return carry

    def _read(
        self,
        rows: Sequence[np.ndarray],
        skipped: Sequence[int],
        items: Sequence[Item],
        carry: Carry,
        seen: np.ndarray | int,
    ) -> list[ItemScore]:
        """Scores of rows read in step, each from position `seen` on, whose first `skipped` positions are not scored.

        Rows that have a memory already come longest first.
        """
        if not rows:
            return []
        order = sorted(range(len(rows)), key=lambda row: (-len(rows[row]), row))
        seen_R1 = np.broadcast_to(np.asarray(seen), (len(rows),))[:, None]
        scores = _Scores(self.network.output, items)
        for offset in range(0, len(rows[order[0]]), self.segment_length):
            active = [row for row in order if len(rows[row]) > offset]
            part = [rows[row][offset : offset + self.segment_length] for row in active]
            tokens_RL = np.stack([np.pad(one, (0, len(part[0]) - len(one))) for one in part])
            carry = {name: value[: len(active)] for name, value in carry.items()}
            age_RL = seen_R1[: len(active)] + np.arange(offset, offset + len(part[0]))
            hidden_RLW, carry = self._hidden(tokens_RL, age_RL, carry)
            for index, row in enumerate(active):
                begin = max(skipped[row] - offset, 0)
                scores.add(row, hidden_RLW[index, begin : len(part[index])])
        return scores.finish()

    def _hidden(self, tokens_RL: np.ndarray, age_RL: np.ndarray, carry: Carry) -> tuple[Tensor, Carry]:
        tokens, age = (torch.from_numpy(np.ascontiguousarray(x)).to(self.network.device) for x in (tokens_RL, age_RL))
        return self.network.hidden(tokens, age, carry)


class _Scores:
    """Scores of items whose hidden states come piece by piece, in the order of each item's positions: few are kept."""

    def __init__(self, output: OutputLayer, items: Sequence[Item]) -> None:
        self.output, self.items = output, items
        self.come = [0] * len(items)
        self.found: list[list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = [[] for _ in items]
        self.waiting: list[tuple[int, int, Tensor]] = []
        self.num_waiting = 0

    def add(self, place: int, hidden_NW: Tensor) -> None:
        if len(hidden_NW):
            self.waiting.append((place, self.come[place], hidden_NW.clone()))
            self.come[place] += len(hidden_NW)
            self.num_waiting += len(hidden_NW)
        if self.num_waiting >= POSITIONS:
            self._score()

    def _score(self) -> None:
        if not self.waiting:
            return
        starts = np.cumsum([0, *(len(piece) for _, _, piece in self.waiting)]).tolist()
        label_N = np.concatenate([self.items[i].continuation[b : b + len(piece)] for i, b, piece in self.waiting])
        barred = {
            start: self.items[place].barred
            for start, (place, begin, _) in zip(starts, self.waiting, strict=False)
            if begin == 0 and self.items[place].barred
        }
        every = score_positions(
            self.output,
            torch.cat([piece for _, _, piece in self.waiting]),
            label_N,
            barred,
            nats_alone=all(item.running for item in self.items),
        )
        for (place, _, _), start, end in zip(self.waiting, starts, starts[1:], strict=False):
            nats_T, greedy_T, without_T = (one_N[start:end] for one_N in every)
            self.found[place].append((nats_T, greedy_T, without_T))
        self.waiting, self.num_waiting = [], 0

    def finish(self) -> list[ItemScore]:
        self._score()
        pieces = [tuple(map(np.concatenate, zip(*own, strict=True))) for own in self.found]
        return [ItemScore(nats_T, greedy_T, bool(without_T[0])) for nats_T, greedy_T, without_T in pieces]
