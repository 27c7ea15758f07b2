"""How well an interpolation between two data keeps to data, where data have one known degree of freedom.

Berthelot et al. 2019 (https://arxiv.org/abs/1807.07543), section 3.2, on images of a line at each of many angles. For P
points of a path, the nearest datum of point n by cosine distance has the angle q_n, and

    mean distance = 1/P sum_n min_m (1 - cos(point_n, datum_m))
    smoothness    = max_n (q_{n+1} - q_n) / |q_P - q_1| - 1/(P - 1)

Both are 0 at their best: every point is a datum, and angles go on in equal steps. Angles are taken on the circle: the
way from q_1 to q_P is the shorter one, and steps count along it.

Shape legend: N paths, P points of a path, D dimensions, M data.
"""

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from data_pipeline.config import BadInput
from evals.metric import Metric
from evals.metrics.average import average


def line_interpolation(
    paths_NPD: Tensor, data_MD: Tensor, angles_M: Tensor, *, period: float = 2 * math.pi, protocol: Mapping[str, Any]
) -> tuple[Metric, Metric]:
    """`mean_distance` and `smoothness` of paths among all data, whose angles have this `period`.

    A path that ends at the angle where it began has no smoothness: raises BadInput.
    """
    if paths_NPD.ndim != 3 or paths_NPD.shape[1] < 2 or data_MD.ndim != 2 or paths_NPD.shape[2] != data_MD.shape[1]:
        shapes = f"{tuple(paths_NPD.shape)} and {tuple(data_MD.shape)}"
        raise BadInput(f"paths and data have shapes {shapes}; must be [N, P, D] with P at least 2, and [M, D]")
    if angles_M.shape != data_MD.shape[:1]:
        raise BadInput(f"{len(angles_M)} angles for {len(data_MD)} data; must be as many")
    points = F.normalize(paths_NPD.double(), dim=-1)
    distance_NPM = 1 - points @ F.normalize(data_MD.double(), dim=-1).T
    nearest = distance_NPM.min(-1)
    known = {**protocol, "points": paths_NPD.shape[1], "data": len(data_MD), "distance": "cosine"}
    mean = average("mean_distance", nearest.values.mean(-1), unit="cosine distance", better="lower", protocol=known)
    smooth_N = _smoothness(angles_M.double()[nearest.indices], period)
    return mean, average("smoothness", smooth_N, unit="share of the way", better="lower", protocol=known)


def _smoothness(angles_NP: Tensor, period: float) -> Tensor:
    """[N]."""
    way_N = _on_circle(angles_NP[:, -1] - angles_NP[:, 0], period)
    if not bool(way_N.abs().min() > 0):
        raise BadInput("a path ends at the angle where it began, so that its smoothness is not defined; leave it out")
    steps_NP = _on_circle(angles_NP.diff(dim=-1), period) * way_N.sign()[:, None]
    return steps_NP.max(-1).values / way_N.abs() - 1 / (angles_NP.shape[1] - 1)


def _on_circle(difference: Tensor, period: float) -> Tensor:
    """The same difference of angles, from -period / 2 to period / 2."""
    return difference - period * (difference / period).round()
