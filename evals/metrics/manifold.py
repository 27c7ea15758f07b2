"""Improved precision and recall (Kynkaanniemi et al. 2019, https://arxiv.org/abs/1904.06991, eq. 1 and 2).

The manifold of a set is the union of balls around its points, each reaching to the point's k-th nearest neighbour in
the set. Precision is the share of samples within the manifold of the data, recall that of data within the samples'.

A neighbour is another point, even one at the same place; a point at exactly the radius is inside. Distances are sums of
squared differences in float64, not differences of products: equal points are exactly 0 apart.

Shape legend: N points of a set, M of the other, R rows of a block, F features.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from data_pipeline.config import BadInput
from evals.metric import Metric
from evals.metrics.average import average
from evals.metrics.batches import Rows, all_rows

BLOCK = 1 << 22
"""Distances held at once."""


def precision_recall(
    reference: Rows, generated: Rows, *, neighbours: int = 3, features: str, protocol: Mapping[str, Any]
) -> tuple[Metric, Metric]:
    """`precision` and `recall`, shares, of features [N, F]; `features` names their network, with its hash.

    Errors hold the manifold fixed. Both depend on the numbers of points, which stand in the protocol.
    """
    reference_NF, generated_MF = all_rows(reference, "reference"), all_rows(generated, "generated")
    if min(len(reference_NF), len(generated_MF)) <= neighbours or neighbours < 1:
        counts = f"{len(reference_NF)} and {len(generated_MF)} points"
        raise BadInput(f"neighbours is {neighbours} with {counts}; must be at least 1 and below both")
    if not (reference_NF.isfinite().all() and generated_MF.isfinite().all()):
        raise BadInput("features hold numbers that are not finite")
    known = {
        **protocol,
        "features": features,
        "neighbours": neighbours,
        "reference_count": len(reference_NF),
        "generated_count": len(generated_MF),
    }

    def share(name: str, points: Tensor, of: Tensor) -> Metric:
        inside = within(points, of, radii(of, neighbours))
        return average(name, inside.double(), unit="share", better="higher", protocol=known)

    return share("precision", generated_MF, reference_NF), share("recall", reference_NF, generated_MF)


def radii(points_NF: Tensor, neighbours: int) -> Tensor:
    """[N] distance of each point to its k-th nearest other point."""
    found, start = [], 0
    for block_RF in points_NF.split(_rows(points_NF)):
        distance_RN = _distances(block_RF, points_NF)
        own_R = torch.arange(len(block_RF))
        distance_RN[own_R, start + own_R] = torch.inf
        found.append(distance_RN.kthvalue(neighbours, dim=-1).values)
        start += len(block_RF)
    return torch.cat(found)


def within(points_MF: Tensor, centres_NF: Tensor, radii_N: Tensor) -> Tensor:
    """[M] whether each point lies in the ball of any centre."""
    return torch.cat(
        [(_distances(block_RF, centres_NF) <= radii_N).any(-1) for block_RF in points_MF.split(_rows(centres_NF))]
    )


def _distances(points_RF: Tensor, others_NF: Tensor) -> Tensor:
    return torch.cdist(points_RF, others_NF, compute_mode="donot_use_mm_for_euclid_dist")


def _rows(others_NF: Tensor) -> int:
    return max(1, BLOCK // len(others_NF))
