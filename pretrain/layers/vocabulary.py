"""From token ids to vectors and from vectors to the probability of the next token.

Shape legend: E width of the embedding, W model width, V vocabulary; a leading ... is any batch shape.
"""

import math
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data_pipeline.batch import IGNORED


class Vocabulary(Protocol):
    """Embedding and output layer as one thing, since they usually share their weights."""

    def embed(self, tokens: Tensor) -> Tensor:
        """[...] ids -> [..., W]."""

    def nats(self, hidden: Tensor, labels: Tensor) -> Tensor:
        """[..., W], [...] -> [...] -log p(label) in float32; zero where the label is `IGNORED`."""

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., W] -> [..., V] log-probabilities up to a constant, float32."""


def at_least_float32(x: Tensor) -> Tensor:
    """Low-precision numbers as float32; float64 stays, for tests of identities."""
    return x if x.dtype == torch.float64 else x.float()


class FullVocabulary(nn.Module):
    """One softmax over all tokens, its weight shared with the embedding when `tied` (Press & Wolf 2017)."""

    def __init__(self, vocab_size: int, width: int, *, tied: bool = True, bias: bool = True, scale: bool = True) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.empty(vocab_size, width))
        self.output = None if tied else nn.Parameter(torch.empty(vocab_size, width))
        self.bias = nn.Parameter(torch.zeros(vocab_size)) if bias else None
        self.scale = math.sqrt(width) if scale else 1.0

    def embed(self, tokens: Tensor) -> Tensor:
        return F.embedding(tokens, self.embedding) * self.scale

    def logits(self, hidden: Tensor) -> Tensor:
        weight = self.embedding if self.output is None else self.output
        return at_least_float32(F.linear(hidden, weight, self.bias))

    def nats(self, hidden: Tensor, labels: Tensor) -> Tensor:
        logits = self.logits(hidden).flatten(0, -2)
        return F.cross_entropy(logits, labels.flatten(), reduction="none", ignore_index=IGNORED).view(labels.shape)
