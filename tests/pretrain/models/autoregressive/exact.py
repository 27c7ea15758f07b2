"""Checks by enumeration that every autoregressive model of vectors must pass: probabilities, draws, what a value sees.

Shape legend: R rows, D values, S states.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from data_pipeline.batch import VectorBatch
from pretrain.models.autoregressive.visible import VisibleModel

MANY = 200_000


def batch_of(values_RD: Tensor, label: int = 0) -> VectorBatch:
    rows = len(values_RD)
    return VectorBatch(values_RD, torch.full((rows,), label), torch.arange(rows))


def all_states(num_values: int, num_levels: int = 2) -> Tensor:
    """[S, D] float64: every row of levels from 0 to 1, the last value changing fastest."""
    levels = torch.arange(num_levels, dtype=torch.float64) / (num_levels - 1)
    return torch.cartesian_prod(*[levels] * num_values).view(-1, num_values)


def places(states_SD: Tensor, num_levels: int = 2) -> Tensor:
    """[S] int64: where a row stands in `all_states`."""
    digits_SD = (states_SD * (num_levels - 1)).round().long()
    place_S = torch.zeros(len(states_SD), dtype=torch.int64)
    for digit_S in digits_SD.T:
        place_S = place_S * num_levels + digit_S
    return place_S


@torch.no_grad()
def total(model: VisibleModel, num_values: int, num_levels: int = 2, label: int = 0) -> float:
    """The sum of p over all states."""
    return float(model.log_prob(batch_of(all_states(num_values, num_levels), label)).exp().sum())


def fits(counts_S: Tensor, p_S: Tensor) -> bool:
    """Pearson's chi-square below its mean and four standard deviations; states of which few are expected are one."""
    expected_S = p_S * counts_S.sum()
    rare_S = expected_S < 5
    counts = torch.cat([counts_S[~rare_S], counts_S[rare_S].sum()[None]]).double()
    expected = torch.cat([expected_S[~rare_S], expected_S[rare_S].sum()[None]])
    if float(expected[-1]) < 5:
        counts, expected = counts[:-1], expected[:-1]
    statistic = ((counts - expected).square() / expected).sum()
    freedom = len(counts) - 1
    return float(statistic) < freedom + 4 * math.sqrt(2 * freedom)


def counts_of(drawn_ND: Tensor, num_levels: int = 2) -> Tensor:
    return torch.bincount(places(drawn_ND, num_levels), minlength=num_levels ** drawn_ND.shape[1])


@torch.no_grad()
def draws_fit(model: VisibleModel, num_values: int, num_levels: int = 2, count: int = MANY) -> bool:
    """Whether samples have the enumerated probabilities."""
    p_S = model.log_prob(batch_of(all_states(num_values, num_levels))).exp()
    drawn_ND = torch.cat([model.sample(count // 4) for _ in range(4)])
    return fits(counts_of(drawn_ND, num_levels), p_S)


@torch.no_grad()
def completions_fit(
    model: VisibleModel, known: Sequence[bool], state_D: Tensor, num_levels: int = 2, count: int = 50_000
) -> bool:
    """Whether completions of one row have the enumerated probabilities given what of it is known."""
    states_SD, known_D = all_states(len(state_D), num_levels), torch.tensor(known)
    agrees_S = (states_SD[:, known_D] == state_D[known_D]).all(-1)
    p_S = torch.where(agrees_S, model.log_prob(batch_of(states_SD)).exp(), torch.zeros(1, dtype=torch.float64))
    drawn_ND = model.complete(state_D.expand(count, -1), known_D.expand(count, -1))
    counts_S = counts_of(drawn_ND, num_levels)
    return bool((counts_S[~agrees_S] == 0).all()) and fits(counts_S[agrees_S], (p_S / p_S.sum())[agrees_S])
