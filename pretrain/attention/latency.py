"""Latency of a reading in expectation, for training: DAL of the expected delays (Arivazhagan et al. 2019,
https://arxiv.org/abs/1906.05218).

With g_i the expected number of source tokens that had been read when y_i was written, and gamma = |y| / |x|,

    g_i = sum_j j alpha_ij + |x| (1 - sum_j alpha_ij)              what ran past the end has read all of it
    DAL = 1/|y| sum_i g'_i - (i - 1) / gamma,     g'_i = max(g_i, g'_i-1 + 1 / gamma)

Unrolled, g'_i - (i - 1) / gamma = max_{k <= i} g_k - (k - 1) / gamma: the running maximum of the lags. Of a path that
is decided (each alpha 0 or 1) it is DAL of `evals.metrics.latency`.

Shape legend: R rows, T target positions, S source positions.
"""

import torch
from torch import Tensor


def expected_delays(stops_RTS: Tensor, source_lengths_R: Tensor) -> Tensor:
    """[R, T] g. Positions beyond a source's length, such as its end mark, count as all of it."""
    num_positions = stops_RTS.shape[2]
    tokens_RS = torch.minimum(torch.arange(1, num_positions + 1).to(source_lengths_R), source_lengths_R[:, None])
    lost_RT = 1 - stops_RTS.sum(-1)
    return (stops_RTS * tokens_RS[:, None]).sum(-1) + lost_RT * source_lengths_R[:, None]


def differentiable_average_lagging(delays_RT: Tensor, source_lengths_R: Tensor, target_lengths_R: Tensor) -> Tensor:
    """[R] DAL in source tokens over the first `target_lengths_R` positions of each row; 0 of an empty target."""
    counted_R = target_lengths_R.clamp(min=1).to(delays_RT.dtype)
    step_R1 = (source_lengths_R.to(delays_RT.dtype) / counted_R)[:, None]  # 1 / gamma
    places_T = torch.arange(delays_RT.shape[1], device=delays_RT.device)
    lags_RT = (delays_RT - places_T * step_R1).cummax(1).values
    written_RT = places_T < target_lengths_R[:, None]
    return (lags_RT * written_RT).sum(1) / counted_R
