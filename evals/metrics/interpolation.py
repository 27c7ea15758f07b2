"""How well an interpolation between two data keeps to data, where data have one known degree of freedom.

Berthelot et al. 2019 (https://arxiv.org/abs/1807.07543), section 3.2, on images of a line at each of many angles. For P
points of a path, the nearest datum of point n by cosine distance has the angle q_n, and

    mean distance = 1/P sum_n min_m (1 - cos(point_n, datum_m))
    smoothness    = max_n (q_{n+1} - q_n) / |q_P - q_1| - 1/(P - 1)

Both are 0 at their best: every point is a datum, and angles go on in equal steps, so that the largest is no larger than
an even one. Angles are taken on the circle: a step is the shorter way round, and q_P - q_1 the sum of a path's own
steps, which may be more than half of the circle, or all of it. Steps count along that way.

Shape legend: N paths, P points of a path, D dimensions, M data, S = P - 1 steps.
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

    A path whose steps add up to nothing has no smoothness: it is left out of that mean and counted in the protocol
    (`paths_without_a_way`). Raises BadInput where there is no other.
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
    smooth_K = _smoothness(angles_M.double()[nearest.indices], period)
    left_out = len(paths_NPD) - len(smooth_K)
    if len(paths_NPD) and left_out == len(paths_NPD):
        raise BadInput("every path ends at the angle where it began, so that there is no smoothness; give others")
    known |= {"paths_without_a_way": left_out}
    return mean, average("smoothness", smooth_K, unit="share of the way", better="lower", protocol=known)


def _smoothness(angles_NP: Tensor, period: float) -> Tensor:
    """[K] of the paths that go anywhere."""
    steps_NS = _on_circle(angles_NP.diff(dim=-1), period)
    way_N = steps_NS.sum(-1)
    goes_N = way_N.abs() > 1e-9 * period
    along_KS = (steps_NS * way_N.sign()[:, None])[goes_N]
    return along_KS.max(-1).values / way_N[goes_N].abs() - 1 / steps_NS.shape[1]


def _on_circle(difference: Tensor, period: float) -> Tensor:
    """The same difference of angles, from -period / 2 to period / 2."""
    return difference - period * (difference / period).round()
