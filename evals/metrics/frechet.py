"""Frechet distance between Gaussians fitted to features (Heusel et al. 2017, https://arxiv.org/abs/1706.08500, eq. 6).

    d^2 = |m_1 - m_2|^2 + tr(C_1 + C_2 - 2 (C_1^1/2 C_2 C_1^1/2)^1/2)

the squared Wasserstein-2 distance of the two Gaussians; the trace of the last root is the sum of the singular values of
C_1^1/2 C_2^1/2. It is called FID only with the features of Inception, which
need a download; ours is called by its own name, with its network's hash. It falls with the number of samples
(Chong & Forsyth 2020): both numbers stand in the protocol.

Shape legend: R rows of a batch, F features.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from data_pipeline.config import BadInput
from evals.metric import Metric
from evals.metrics.batches import Rows, in_blocks

BLOCK = 512
"""Rows that are summed at once, however they came."""


@dataclass(frozen=True, slots=True)
class Gaussian:
    """Of features."""

    mean_F: Tensor
    covariance_FF: Tensor
    """Unbiased: divided by count - 1."""
    count: int


def fit_gaussian(features: Rows) -> Gaussian:
    """Moments in float64, updated block by block (Chan et al. 1983), so that features need not fit in memory."""
    count, mean_F, scatter_FF = 0, torch.zeros(()), torch.zeros(())
    for features_RF in in_blocks(features, BLOCK):
        if features_RF.ndim != 2 or not features_RF.isfinite().all():
            raise BadInput(f"features of shape {tuple(features_RF.shape)}: must be [rows, features], all finite")
        block_RF = features_RF.to("cpu", torch.float64)
        rows = len(block_RF)
        shift_F = block_RF.mean(0) - mean_F
        centred_RF = block_RF - block_RF.mean(0)
        scatter_FF = scatter_FF + centred_RF.T @ centred_RF + shift_F.outer(shift_F) * (count * rows / (count + rows))
        mean_F = mean_F + shift_F * (rows / (count + rows))
        count += rows
    if count < 2:
        raise BadInput(f"{count} rows of features; a covariance needs at least 2")
    return Gaussian(mean_F, scatter_FF / (count - 1), count)


def squared_frechet(one: Gaussian, other: Gaussian) -> float:
    """d^2; covariances may be singular."""
    cross = torch.linalg.svdvals(_root(one.covariance_FF) @ _root(other.covariance_FF)).sum()
    spread = one.covariance_FF.trace() + other.covariance_FF.trace() - 2 * cross
    return max(0.0, float((one.mean_F - other.mean_F).square().sum() + spread))


def _root(covariance_FF: Tensor) -> Tensor:
    """The symmetric square root."""
    values_F, vectors_FF = torch.linalg.eigh(covariance_FF)
    return vectors_FF * values_F.clamp(min=0).sqrt() @ vectors_FF.T


def frechet_distance(reference: Rows, generated: Rows, *, features: str, protocol: Mapping[str, Any]) -> Metric:
    """`frechet_distance`, squared, between features [N, F] of reference data and of samples.

    `features` names what made them, with the hash of its weights (`FeatureNetwork.fingerprint`). No error is given: it
    is no mean over samples.
    """
    one, other = fit_gaussian(reference), fit_gaussian(generated)
    if len(one.mean_F) != len(other.mean_F):
        raise BadInput(f"{len(one.mean_F)} and {len(other.mean_F)} features; both must come from the same network")
    known = {**protocol, "features": features, "reference_count": one.count, "generated_count": other.count}
    value = squared_frechet(one, other)
    return Metric("frechet_distance", value, "squared feature units", "lower", other.count, None, known)
