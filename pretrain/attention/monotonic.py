"""Monotonic attention (Raffel et al. 2017, https://arxiv.org/abs/1704.00784).

Target position i goes on from where i - 1 stopped, position by position, and stops at j with the probability
p_ij = sigmoid(logit_ij); it reads h_j alone. The probability of stopping there (equations 8 to 11, alpha) is, with
alpha_0 all on the first position,

    q_ij = (1 - p_i,j-1) q_i,j-1 + alpha_i-1,j        that it comes to j
    alpha_ij = p_ij q_ij

The paper evaluates it by cumulative products and sums, dividing by a product that vanishes on long sources. Here it is
the recurrence itself, of sums and products of numbers that are not negative: nothing is divided, and 1 - p is
sigmoid(-logit). All cells with the same i + j follow from those with one less, so there are T + S - 1 steps.

A position that runs past the end of the source reads nothing, and so do all after it. At test time it stops at the
first j with p_ij > 1/2.

Legend: see `pretrain.attention.source`; D = T + S - 1 diagonals.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from pretrain.attention.source import (
    CERTAIN,
    Energy,
    Reading,
    SourceAttention,
    StoppingConfig,
    logits_of_present,
)


class MonotonicConfig(StoppingConfig):
    """Reads the position at which it stops."""

    kind: Literal["monotonic"]

    def build(self, query_width: int, memory_width: int) -> "MonotonicAttention":
        return MonotonicAttention(self, query_width, memory_width)


def expected_stops(logits_RTS: Tensor) -> Tensor:
    """[R, T, S] alpha."""
    rows, num_targets, _ = logits_RTS.shape
    stop_DRT, pass_DRT = (_skewed(p).permute(2, 0, 1) for p in (logits_RTS.sigmoid(), (-logits_RTS).sigmoid()))
    zero_RT = logits_RTS.new_zeros(rows, num_targets)
    start_RT = F.pad(zero_RT[:, 1:], (1, 0), value=1.0)  # alpha_0, which only the first row's first cell is handed
    arriving_RT, alphas = start_RT, []
    for stop_RT, pass_RT in zip(stop_DRT.unbind(), pass_DRT.unbind(), strict=True):
        alpha_RT = stop_RT * arriving_RT
        alphas.append(alpha_RT)
        arriving_RT = pass_RT * arriving_RT + F.pad(alpha_RT[:, :-1], (1, 0))
    return _unskewed(torch.stack(alphas, dim=-1), logits_RTS.shape[2])


def _skewed(x_RTS: Tensor) -> Tensor:
    """[R, T, D]: row i moved i to the right, zeros around it."""
    rows, num_targets, num_sources = x_RTS.shape
    wide = F.pad(x_RTS, (0, num_targets)).flatten(1)
    return wide[:, : wide.shape[1] - num_targets].view(rows, num_targets, num_targets + num_sources - 1)


def _unskewed(x_RTD: Tensor, num_sources: int) -> Tensor:
    """The reverse of `_skewed`."""
    rows, num_targets, num_diagonals = x_RTD.shape
    wide = F.pad(x_RTD.flatten(1), (0, num_targets))
    return wide.view(rows, num_targets, num_diagonals + 1)[:, :, :num_sources]


def hard_stops(logits_RTS: Tensor) -> Tensor:
    """[R, T, S] one where a stream stops (p > 1/2), and zero; a row of zeros has run past the end."""
    wants_RTS, positions_S = logits_RTS > 0, torch.arange(logits_RTS.shape[2], device=logits_RTS.device)
    at_R = torch.zeros(len(logits_RTS), dtype=torch.int64, device=logits_RTS.device)
    stops = []
    for wants_RS in wants_RTS.unbind(1):
        possible_RS = wants_RS & (positions_S >= at_R[:, None])
        found_R = possible_RS.any(1)
        at_R = torch.where(found_R, possible_RS.int().argmax(1), len(positions_S))
        stops.append(positions_S == at_R[:, None])
    return torch.stack(stops, dim=1).to(logits_RTS.dtype)


class MonotonicAttention(SourceAttention):
    """What all attentions that stop have in common: those that read more than one position override `spread`."""

    streams = True

    def __init__(self, config: StoppingConfig, query_width: int, memory_width: int) -> None:
        super().__init__()
        self.noise_std = config.noise_std
        self.stop = Energy(query_width, memory_width, config.width, initial=config.initial_stop_logit)

    def forward(self, s_RTQ: Tensor, h_RSM: Tensor, present_RS: Tensor, *, hard: bool) -> Reading:
        """The last position that is present stops for certain: nothing is lost."""
        logits_RTS = self.stop(s_RTQ, h_RSM)
        if self.training and not hard:
            logits_RTS = logits_RTS + self.noise_std * torch.randn_like(logits_RTS)
        last_RS = present_RS & ~F.pad(present_RS[:, 1:], (0, 1))
        logits_RTS = logits_of_present(logits_RTS, present_RS, -CERTAIN).masked_fill(last_RS[:, None], CERTAIN)
        stops_RTS = hard_stops(logits_RTS) if hard else expected_stops(logits_RTS)
        return Reading(self.spread(stops_RTS, s_RTQ, h_RSM, present_RS), stops_RTS)

    def spread(self, stops_RTS: Tensor, s_RTQ: Tensor, h_RSM: Tensor, present_RS: Tensor) -> Tensor:
        """[R, T, S]: what is read by those that stop so."""
        return stops_RTS

    def stops_here(self, s_1Q: Tensor, h_1M: Tensor) -> bool:
        return bool(self.stop(s_1Q[None], h_1M[None]) > 0)

    def weights(self, s_1Q: Tensor, h_JM: Tensor) -> Tensor:
        present_1J = torch.ones(1, len(h_JM), dtype=torch.bool, device=h_JM.device)
        last_11J = F.one_hot(torch.tensor([[len(h_JM) - 1]], device=h_JM.device), len(h_JM)).to(s_1Q.dtype)
        return self.spread(last_11J, s_1Q[None], h_JM[None], present_1J)[0, 0]
