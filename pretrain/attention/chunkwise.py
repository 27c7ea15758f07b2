"""Monotonic chunkwise attention, MoChA (Chiu & Raffel 2018, https://arxiv.org/abs/1712.05382).

A target position that stops at k reads the w positions that end there, by soft attention over energies u:

    beta_ij = sum_{k = j}^{j + w - 1} alpha_ik exp(u_ij) / sum_{l = k - w + 1}^{k} exp(u_il)       (equation 17)

Each chunk has a softmax of its own, so energies may be of any size: one maximum for a whole row would leave chunks far
below it with 0 / 0.

Legend: see `pretrain.attention.source`; C positions of a chunk.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from pretrain.attention.monotonic import MonotonicAttention
from pretrain.attention.source import Energy, StoppingConfig


class ChunkwiseConfig(StoppingConfig):
    """Reads a chunk that ends where it stops."""

    kind: Literal["chunkwise"]
    chunk_width: int = Field(gt=0)

    def build(self, query_width: int, memory_width: int) -> "ChunkwiseAttention":
        return ChunkwiseAttention(self, query_width, memory_width)


def spread_over_chunks(stops_RTS: Tensor, energies_RTS: Tensor, chunk_width: int) -> Tensor:
    """[R, T, S] beta of alpha and u."""
    num_sources = stops_RTS.shape[2]
    width = min(chunk_width, num_sources)
    before = F.pad(energies_RTS, (width - 1, 0), value=float("-inf"))
    read_RTSC = stops_RTS[..., None] * before.unfold(-1, width, 1).softmax(-1)
    beta_RTS = torch.zeros_like(stops_RTS)
    for back in range(width):
        part_RTS = read_RTSC[..., width - 1 - back]  # what those that stop at k read at k - back
        beta_RTS = beta_RTS + F.pad(part_RTS[..., back:], (0, back))
    return beta_RTS


class ChunkwiseAttention(MonotonicAttention):
    """Has energies for where to stop and others for what to read."""

    def __init__(self, config: ChunkwiseConfig, query_width: int, memory_width: int) -> None:
        super().__init__(config, query_width, memory_width)
        self.chunk_width = config.chunk_width
        self.energy = Energy(query_width, memory_width, config.width)

    def spread(self, stops_RTS: Tensor, s_RTQ: Tensor, h_RSM: Tensor, present_RS: Tensor) -> Tensor:
        """Where nothing is present nobody stops, so energies need no mask."""
        return spread_over_chunks(stops_RTS, self.energy(s_RTQ, h_RSM), self.chunk_width)

    def weights(self, s_1Q: Tensor, h_JM: Tensor) -> Tensor:
        """Energies of the chunk alone, so that a token costs no more where more has been read."""
        chunk_C = self.energy(s_1Q[None], h_JM[None, -self.chunk_width :])[0, 0].softmax(-1)
        return F.pad(chunk_C, (len(h_JM) - len(chunk_C), 0))
