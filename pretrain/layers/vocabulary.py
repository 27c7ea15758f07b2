"""From token ids to vectors and from vectors to the probability of the next token.

Shape legend: E width of the embedding, W model width, V vocabulary, N tokens; a leading ... is any batch shape.
"""

import math
from itertools import pairwise
from typing import Annotated, Literal, Protocol

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from data_pipeline.batch import IGNORED
from data_pipeline.config import Config
from kernels.choice import Implementation
from kernels.linear_cross_entropy import linear_cross_entropy
from pretrain.layers.precision import at_least_float32


class Vocabulary(Protocol):
    """Embedding and output layer as one thing, since they usually share their weights."""

    def embed(self, tokens: Tensor) -> Tensor:
        """[...] ids -> [..., W]."""

    def nats(self, hidden: Tensor, labels: Tensor) -> Tensor:
        """[..., W], [...] -> [...] -log p(label) in float32; zero where the label is `IGNORED`."""

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., W] -> [..., V] log-probabilities up to a constant, float32."""

    def flops_per_token(self) -> float:
        """Floating-point operations of the output layer for one token."""


class FullVocabularyConfig(Config):
    """One softmax over all tokens."""

    kind: Literal["full"] = "full"
    tied: bool = True
    """The output layer shares the embedding's weights."""

    def build(self, vocab_size: int, width: int) -> "FullVocabulary":
        return FullVocabulary(vocab_size, width, tied=self.tied)


class AdaptiveVocabularyConfig(Config):
    """A softmax over the frequent tokens and over clusters of rarer ones; ids must be in order of frequency."""

    kind: Literal["adaptive"]
    cutoffs: tuple[int, ...] = Field(min_length=1)
    """Where each cluster of rarer tokens begins."""
    div_val: int = Field(default=1, gt=0)
    """Each cluster's embedding is this many times narrower than the one before."""
    embedding_width: int = Field(gt=0)
    """Width of the frequent tokens' embedding."""
    tied: bool = True
    """The output layer shares the embedding's weights."""
    tie_projections: Literal["none", "all_but_first", "all"] = "all_but_first"
    """Which clusters' projections between embedding and model width it shares as well."""

    def problem(self, vocab_size: int) -> str | None:
        """Why these settings do not fit a vocabulary of this size, or None."""
        edges = (0, *self.cutoffs, vocab_size)
        if list(edges) != sorted(set(edges)):
            return f"vocabulary.cutoffs {list(self.cutoffs)} must rise strictly between 0 and vocab_size {vocab_size}"
        if self.embedding_width < self.div_val ** len(self.cutoffs):
            return (
                f"vocabulary.embedding_width {self.embedding_width} leaves nothing for the last cluster: it is divided "
                f"by div_val {self.div_val} for each of {len(self.cutoffs)} cutoffs"
            )
        return None

    def build(self, vocab_size: int, width: int) -> "AdaptiveVocabulary":
        return AdaptiveVocabulary(vocab_size, width, self)


VocabularyConfig = Annotated[FullVocabularyConfig | AdaptiveVocabularyConfig, Field(discriminator="kind")]


class FullVocabulary(nn.Module):
    """One softmax over all tokens, its weight shared with the embedding when `tied` (Press & Wolf 2017)."""

    kernel = "linear_cross_entropy"

    def __init__(
        self, vocab_size: int, width: int, *, tied: bool = True, bias: bool = True, scale: bool = True
    ) -> None:
        super().__init__()
        self.impl: Implementation = "auto"
        self.embedding = nn.Parameter(torch.empty(vocab_size, width))
        self.output = None if tied else nn.Parameter(torch.empty(vocab_size, width))
        self.bias = nn.Parameter(torch.zeros(vocab_size)) if bias else None
        self.scale = math.sqrt(width) if scale else 1.0

    def kernel_unsupported(self) -> str | None:
        return None

    def embed(self, tokens: Tensor) -> Tensor:
        return F.embedding(tokens, self.embedding) * self.scale

    def logits(self, hidden: Tensor) -> Tensor:
        weight = self.embedding if self.output is None else self.output
        return at_least_float32(F.linear(hidden, weight, self.bias))

    def nats(self, hidden: Tensor, labels: Tensor) -> Tensor:
        weight = self.embedding if self.output is None else self.output
        nats_N = linear_cross_entropy(hidden.flatten(0, -2), weight, self.bias, labels.flatten(), impl=self.impl)
        return nats_N.view(labels.shape)

    def flops_per_token(self) -> float:
        return 2.0 * self.embedding.numel()


class AdaptiveVocabulary(nn.Module):
    """Narrower embeddings and a second softmax for rarer tokens.

    Grave et al. 2017 (https://arxiv.org/abs/1609.04309), Baevski & Auli 2019 (https://arxiv.org/abs/1809.10853). Tokens
    are cut into a head and clusters. The head's softmax is over its own tokens and one entry per cluster, so

        p(token) = p_head(token)   or   p_head(cluster) p_cluster(token)

    A cluster's embedding of width E goes to the model's width W and back by a projection P [W, E], left out where all
    widths equal W. Every weight takes part in every pass, even where no token of its cluster occurs.

    By the reference, tokens are sorted and split by cluster, so that each cluster reads its own alone; on a GPU the
    host waits for their counts. The fused kernel is given all tokens for every cluster, those of others masked, and
    skips them.
    """

    kernel = "linear_cross_entropy"

    def __init__(self, vocab_size: int, width: int, config: AdaptiveVocabularyConfig) -> None:
        super().__init__()
        self.impl: Implementation = "auto"
        problem = config.problem(vocab_size)
        if problem is not None:
            raise ValueError(problem)
        edges = (0, *config.cutoffs, vocab_size)
        self.starts, self.sizes = edges[:-1], [end - start for start, end in pairwise(edges)]
        widths = [config.embedding_width // config.div_val**index for index in range(len(self.sizes))]
        self.embeddings = _matrices(self.sizes, widths)
        self.outputs = None if config.tied else _matrices(self.sizes, widths)
        self.cluster_weight = nn.Parameter(torch.empty(len(config.cutoffs), config.embedding_width))
        self.bias = nn.Parameter(torch.zeros(vocab_size))
        self.cluster_bias = nn.Parameter(torch.zeros(len(config.cutoffs)))
        projected = set(widths) != {width}
        self.projections = _matrices([width] * len(widths), widths) if projected else None
        num_own = {"none": len(widths), "all_but_first": 1, "all": 0}[config.tie_projections] if projected else 0
        self.output_projections = _matrices([width] * num_own, widths[:num_own])
        self.scale = math.sqrt(width)

    def kernel_unsupported(self) -> str | None:
        return None

    def embed(self, tokens: Tensor) -> Tensor:
        if not self._counts(tokens):
            return self._embed_masked(tokens) * self.scale
        order_N, _, counts = self._by_cluster(tokens.flatten())
        parts = []
        for index, ids in enumerate(tokens.flatten()[order_N].split(counts)):
            part = F.embedding(ids - self.starts[index], self.embeddings[index])
            parts.append(part if self.projections is None else F.linear(part, self.projections[index]))
        sorted_NW = torch.cat(parts)
        return torch.empty_like(sorted_NW).index_copy(0, order_N, sorted_NW).view(*tokens.shape, -1) * self.scale

    def _embed_masked(self, tokens: Tensor) -> Tensor:
        """[..., W] without the scale."""
        found: Tensor | None = None
        for index, (start, size) in enumerate(zip(self.starts, self.sizes, strict=True)):
            part = F.embedding((tokens - start).clamp(0, size - 1), self.embeddings[index])
            part = part if self.projections is None else F.linear(part, self.projections[index])
            found = part if found is None else torch.where((tokens >= start)[..., None], part, found)
        assert found is not None
        return found

    def nats(self, hidden: Tensor, labels: Tensor) -> Tensor:
        if not self._counts(labels):
            return self._nats_masked(hidden.flatten(0, -2), labels.flatten()).view(labels.shape)
        order_N, cluster_N, counts = self._by_cluster(labels.flatten())
        hidden_NW, label_N = hidden.flatten(0, -2)[order_N], labels.flatten()[order_N]
        entry_N = torch.where(cluster_N == 0, label_N, self.sizes[0] + cluster_N - 1)
        head_N = linear_cross_entropy(self._narrow(0, hidden_NW), *self._head(), entry_N, impl=self.impl)
        tails = [torch.zeros_like(head_N[: counts[0]])]
        pieces = list(zip(hidden_NW.split(counts), label_N.split(counts), strict=True))
        for index, (piece_NW, ids) in enumerate(pieces[1:], start=1):
            narrow, own = self._narrow(index, piece_NW), ids - self.starts[index]
            tails.append(linear_cross_entropy(narrow, *self._tail(index), own, impl=self.impl))
        nats_N = head_N + torch.cat(tails)
        return nats_N.new_zeros(labels.numel()).index_copy(0, order_N, nats_N).view(labels.shape)

    def _nats_masked(self, hidden_NW: Tensor, labels_N: Tensor) -> Tensor:
        """[N] in which each cluster ignores the tokens of others; sorted, so that these fill whole tiles."""
        cluster_N, order_N = self._cluster(labels_N).sort(stable=True)
        hidden_NW, label_N = hidden_NW[order_N], labels_N[order_N]
        entry_N = torch.where(cluster_N == 0, label_N, self.sizes[0] + cluster_N - 1)
        entry_N = entry_N.masked_fill(label_N == IGNORED, IGNORED)
        nats_N = linear_cross_entropy(self._narrow(0, hidden_NW), *self._head(), entry_N, impl=self.impl)
        for index in range(1, len(self.sizes)):
            own_N = torch.where(cluster_N == index, label_N - self.starts[index], IGNORED)
            narrow, tail = self._narrow(index, hidden_NW), self._tail(index)
            nats_N = nats_N + linear_cross_entropy(narrow, *tail, own_N, mostly_ignored=True, impl=self.impl)
        return torch.zeros_like(nats_N).index_copy(0, order_N, nats_N)

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., W] -> [..., V] log-probabilities."""
        head = at_least_float32(F.linear(self._narrow(0, hidden), *self._head())).log_softmax(-1)
        parts = [head[..., : self.sizes[0]]]
        for index in range(1, len(self.sizes)):
            cluster = head[..., self.sizes[0] + index - 1, None]
            tail = at_least_float32(F.linear(self._narrow(index, hidden), *self._tail(index)))
            parts.append(cluster + tail.log_softmax(-1))
        return torch.cat(parts, dim=-1)

    def flops_per_token(self) -> float:
        """Of the head only, a lower bound: how often a cluster is computed depends on the data."""
        head = self.embeddings[0].numel() + self.cluster_weight.numel()
        return 2.0 * (head + (0 if self.projections is None else self.projections[0].numel()))

    def _counts(self, tokens: Tensor) -> bool:
        """Whether the tokens of each cluster are counted. Not where the fused kernel may run: it skips those of others,
        and a host would have to wait for a GPU."""
        return self.impl == "reference" or (tokens.device.type == "cpu" and self.impl != "triton")

    def _cluster(self, flat: Tensor) -> Tensor:
        """[N] of each id; one more than there are for those that are ignored."""
        cluster = torch.zeros_like(flat)
        for start in self.starts[1:]:  # a tensor of the starts would have to be copied to a GPU, and waited for
            cluster += flat >= start
        return cluster.masked_fill(flat == IGNORED, len(self.sizes))

    def _by_cluster(self, flat: Tensor) -> tuple[Tensor, Tensor, list[int]]:
        """[N] positions of ids that are not ignored, in order of cluster; [N] their clusters; how many each has."""
        cluster = self._cluster(flat)
        cluster_N, order_N = cluster.sort(stable=True)
        counts = cluster.bincount(minlength=len(self.sizes) + 1).tolist()[:-1]
        return order_N[: sum(counts)], cluster_N[: sum(counts)], counts

    def _head(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the frequent tokens and of one entry per cluster."""
        weight = torch.cat([self._output(0), self.cluster_weight])
        return weight, torch.cat([self.bias[: self.sizes[0]], self.cluster_bias])

    def _tail(self, index: int) -> tuple[Tensor, Tensor]:
        """Weight and bias of a cluster's tokens."""
        return self._output(index), self.bias[self.starts[index] : self.starts[index] + self.sizes[index]]

    def _output(self, index: int) -> Tensor:
        return self.embeddings[index] if self.outputs is None else self.outputs[index]

    def _narrow(self, index: int, hidden: Tensor) -> Tensor:
        """[..., W] -> [..., E] of this cluster."""
        if self.projections is None:
            return hidden
        own = index < len(self.output_projections)
        return hidden @ (self.output_projections[index] if own else self.projections[index])


def _matrices(rows: list[int], columns: list[int]) -> nn.ParameterList:
    return nn.ParameterList(nn.Parameter(torch.empty(shape)) for shape in zip(rows, columns, strict=True))
