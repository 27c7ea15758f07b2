"""Monotonic infinite lookback attention, MILk (Arivazhagan et al. 2019, https://arxiv.org/abs/1906.05218).

A target position that stops at k reads all of the source up to there, by soft attention over energies u:

    beta_ij = sum_{k >= j} alpha_ik exp(u_ij) / sum_{l <= k} exp(u_il)

With the running maximum m_j = max(m_j-1, u_j) and the running sum z_j = z_j-1 exp(m_j-1 - m_j) + exp(u_j - m_j), so
that the sum up to k is z_k exp(m_k), it is the backward recurrence

    b_j = alpha_j + z_j exp(m_j - m_j+1) / z_j+1 b_j+1,     beta_j = exp(u_j - m_j) / z_j b_j

in which every factor lies between 0 and 1 whatever the size of u, and nothing is subtracted but energies.

Legend: see `pretrain.attention.source`.
"""

from typing import Literal

import torch
from torch import Tensor

from pretrain.attention.monotonic import MonotonicAttention
from pretrain.attention.source import Energy, StoppingConfig


class InfiniteLookbackConfig(StoppingConfig):
    """Reads everything up to where it stops."""

    kind: Literal["infinite_lookback"]

    def build(self, query_width: int, memory_width: int) -> "InfiniteLookbackAttention":
        return InfiniteLookbackAttention(self, query_width, memory_width)


def spread_over_prefixes(stops_RTS: Tensor, energies_RTS: Tensor) -> Tensor:
    """[R, T, S] beta of alpha and u."""
    most_RTS = energies_RTS.detach().cummax(-1).values
    own = (energies_RTS - most_RTS).exp().unbind(-1)
    shrink = (most_RTS[..., :-1] - most_RTS[..., 1:]).exp().unbind(-1)
    sums = [own[0]]
    for own_RT, shrink_RT in zip(own[1:], shrink, strict=True):
        sums.append(sums[-1] * shrink_RT + own_RT)
    alphas = stops_RTS.unbind(-1)
    later_RT = alphas[-1]
    betas = [own[-1] / sums[-1] * later_RT]
    for j in range(len(own) - 2, -1, -1):
        later_RT = alphas[j] + sums[j] * shrink[j] / sums[j + 1] * later_RT
        betas.append(own[j] / sums[j] * later_RT)
    return torch.stack(betas[::-1], dim=-1)


class InfiniteLookbackAttention(MonotonicAttention):
    """Has energies for where to stop and others for what to read."""

    def __init__(self, config: InfiniteLookbackConfig, query_width: int, memory_width: int) -> None:
        super().__init__(config, query_width, memory_width)
        self.energy = Energy(query_width, memory_width, config.width)

    def spread(self, stops_RTS: Tensor, s_RTQ: Tensor, h_RSM: Tensor, present_RS: Tensor) -> Tensor:
        """Where nothing is present nobody stops, so energies need no mask."""
        return spread_over_prefixes(stops_RTS, self.energy(s_RTQ, h_RSM))
