"""From hidden states to the probabilities of tokens, a part of the vocabulary at a time.

All logits of a position are never held at once where the layer is a product: log-sum-exp and the likeliest token are
kept over the parts (Milakov & Gimelshein 2018, https://arxiv.org/abs/1805.02867). On a processor that is most of the
time of a small model: a part stays in its cache.

Shape legend: N scored positions, W model width, V vocabulary, P tokens of a part.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from data_pipeline.config import BadInput
from evals.scoring.item import Item, ItemScore

POSITIONS = 256
"""Scored positions that are held at once."""
LOGITS_OF_A_PART = {"cpu": 512 * 1024}
"""By the device's type; elsewhere the whole vocabulary is one part."""


Nats = Callable[[Tensor, Tensor], Tensor]
"""[N, W], [N] -> [N] -log p of the labels."""


class OutputLayer(Protocol):
    """What gives the next token's probabilities."""

    vocab_size: int
    nats: Nats | None
    """Where it is shorter than by all logits: for text of which nobody asks what is likeliest."""

    def parts(self, hidden_NW: Tensor) -> Iterator[Tensor]:
        """[N, P] logits, at least float32, from the first token on; whoever reads them may write over them."""


class LinearOutput:
    """logits = cap tanh(scale (W h + b) / cap); no cap: scale (W h + b)."""

    nats: Nats | None = None

    def __init__(
        self, weight_VW: Tensor, bias_V: Tensor | None = None, *, scale: float = 1.0, cap: float | None = None
    ) -> None:
        self.weight_VW, self.bias_V, self.vocab_size = weight_VW, bias_V, int(weight_VW.shape[0])
        self.scale, self.cap = scale, cap

    def parts(self, hidden_NW: Tensor) -> Iterator[Tensor]:
        logits = LOGITS_OF_A_PART.get(hidden_NW.device.type, len(hidden_NW) * self.vocab_size)
        size = max(1, logits // len(hidden_NW))
        for first in range(0, self.vocab_size, size):
            part = slice(first, first + size)
            bias_P = None if self.bias_V is None else self.bias_V[part]
            logits_NP = F.linear(hidden_NW, self.weight_VW[part], bias_P)
            logits_NP = logits_NP if logits_NP.dtype == torch.float64 else logits_NP.float()
            if self.scale != 1.0:
                logits_NP *= self.scale
            yield logits_NP if self.cap is None else (logits_NP / self.cap).tanh_() * self.cap


class WholeOutput:
    """Any other layer: all logits at once, or a shorter way to the nats of labels alone."""

    def __init__(self, vocab_size: int, logits: Callable[[Tensor], Tensor], nats: Nats | None = None) -> None:
        self.vocab_size, self.logits, self.nats = vocab_size, logits, nats

    def parts(self, hidden_NW: Tensor) -> Iterator[Tensor]:
        yield self.logits(hidden_NW)


class _Greedy:
    """Whether a label's logit is the largest, seen part after part; among equals the lowest id is."""

    def __init__(self, label_N: Tensor, like_N: Tensor) -> None:
        self.label_N = label_N
        self.most_N = torch.full_like(like_N, -torch.inf)
        self.own_N = torch.zeros_like(like_N)
        self.first_N = torch.zeros_like(label_N, dtype=torch.bool)
        """Whether no lower id has as large a logit."""

    def see(self, logits_NP: Tensor, first: int) -> None:
        place_N = self.label_N - first
        own_N = logits_NP.gather(1, place_N.clamp(0, logits_NP.shape[1] - 1)[:, None])[:, 0]
        here_N = (place_N >= 0) & (place_N < logits_NP.shape[1])
        self.own_N = torch.where(here_N, own_N, self.own_N)
        most_N = logits_NP.amax(1)  # so much faster than where it is, which is asked for few
        (rows,) = (here_N & (own_N == most_N) & (own_N > self.most_N)).nonzero(as_tuple=True)
        self.first_N[rows] = logits_NP[rows].argmax(1) == place_N[rows]
        self.most_N = torch.maximum(self.most_N, most_N)

    def result(self) -> Tensor:
        return self.first_N & (self.own_N == self.most_N)


class _Running:
    """What is known of N positions after the parts so far."""

    def __init__(self, label_N: Tensor, barred: dict[frozenset[int], Tensor], dtype: torch.dtype) -> None:
        self.total_N = torch.zeros(label_N.shape, dtype=dtype, device=label_N.device)
        self.greedy, self.barred = _Greedy(label_N, self.total_N), barred
        self.allowed = {ids: _Greedy(label_N[rows], self.total_N[rows]) for ids, rows in barred.items()}

    def see(self, logits_NP: Tensor, first: int) -> None:
        """Writes over the logits."""
        for ids, rows in self.barred.items():
            left_RP = logits_NP[rows]
            left_RP[:, [one - first for one in sorted(ids) if first <= one < first + left_RP.shape[1]]] = -torch.inf
            self.allowed[ids].see(left_RP, first)
        before_N = self.greedy.most_N
        self.greedy.see(logits_NP, first)
        most_N = self.greedy.most_N
        base_N = most_N.masked_fill(most_N == -torch.inf, 0.0)  # as long as all was impossible
        part_N = logits_NP.sub_(base_N[:, None]).exp_().sum(1)
        self.total_N = self.total_N * (before_N - base_N).exp() + part_N

    def result(self) -> tuple[Tensor, Tensor, Tensor]:
        """-log p of the labels; whether each is the likeliest; whether it is of what is not barred."""
        greedy_N = self.greedy.result()
        without_N = greedy_N.clone()
        for ids, rows in self.barred.items():
            without_N[rows] = self.allowed[ids].result()
        return self.greedy.most_N - self.greedy.own_N + self.total_N.log(), greedy_N, without_N


def _score_part(
    layer: OutputLayer, hidden_NW: Tensor, label_N: Tensor, barred: dict[frozenset[int], Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """`barred`: the rows of each set of ids that may not be the likeliest."""
    running: _Running | None = None
    first = 0
    for logits_NP in layer.parts(hidden_NW):
        running = running or _Running(label_N, barred, logits_NP.dtype)
        running.see(logits_NP, first)
        first += logits_NP.shape[1]
    assert running is not None, "a vocabulary has a token"
    return running.result()


@torch.no_grad()
def score_positions(
    layer: OutputLayer,
    hidden_NW: Tensor,
    label_N: np.ndarray,
    barred: Mapping[int, frozenset[int]],
    *,
    nats_alone: bool = False,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """[N] float64 -log p of the labels; [N] bool whether each is the likeliest; [N] bool whether it is the likeliest of
    those that are not barred (`barred`: ids by position). `nats_alone`: the others are not asked for.

    Raises BadInput for a label that the layer does not have.
    """
    if len(label_N) and int(label_N.max()) >= layer.vocab_size:
        raise BadInput(
            f"token {int(label_N.max())} is none of the model's {layer.vocab_size:,}: is the tokenizer the model's own?"
        )
    nats_N, greedy_N = np.empty(len(label_N)), np.zeros(len(label_N), dtype=bool)
    without_N = greedy_N.copy()
    device = hidden_NW.device
    for first in range(0, len(label_N), POSITIONS):
        part = slice(first, min(first + POSITIONS, len(label_N)))
        if nats_alone and layer.nats is not None:
            nats_N[part] = (
                layer.nats(hidden_NW[part], torch.from_numpy(label_N[part]).to(device)).double().cpu().numpy()
            )
            continue
        rows: dict[frozenset[int], list[int]] = {}
        for place in sorted(barred.keys() & range(part.start, part.stop)):
            rows.setdefault(barred[place], []).append(place - first)
        found = _score_part(
            layer,
            hidden_NW[part],
            torch.from_numpy(label_N[part]).to(device),
            {ids: torch.tensor(own, device=device) for ids, own in rows.items()},
        )
        nats_N[part], greedy_N[part], without_N[part] = (one.cpu().numpy() for one in found)
    return nats_N, greedy_N, without_N


def score_hidden(layer: OutputLayer, hidden_NW: Tensor, items: Sequence[Item]) -> list[ItemScore]:
    """The scores of items whose scored positions stand in `hidden_NW` one after another."""
    label_N = np.concatenate([item.continuation for item in items])
    ends = np.cumsum([len(item.continuation) for item in items])
    starts = ends - [len(item.continuation) for item in items]
    barred = {int(start): item.barred for start, item in zip(starts, items, strict=True) if item.barred}
    running = all(item.running for item in items)
    nats_N, greedy_N, without_N = score_positions(layer, hidden_NW, label_N, barred, nats_alone=running)
    return [
        ItemScore(nats_N[start:end], greedy_N[start:end], bool(without_N[start]))
        for start, end in zip(starts, ends, strict=True)
    ]
