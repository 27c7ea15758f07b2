"""How samples cover a mixture whose modes are known, such as eight Gaussians on a circle.

A sample belongs to the nearest mode, and is of high quality within `radius` standard deviations of it; a mode is
covered by at least `at_least` such samples (Srivastava et al. 2017, https://arxiv.org/abs/1705.07761, count with 3
and 1).

Shape legend: N samples, M modes, D dimensions.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from data_pipeline.config import BadInput
from evals.metric import Metric
from evals.metrics.average import average
from evals.metrics.batches import Rows, all_rows


def mixture_modes(
    samples: Rows,
    centres_MD: Tensor,
    *,
    standard_deviation: float,
    radius: float = 3.0,
    at_least: int = 1,
    protocol: Mapping[str, Any],
) -> tuple[Metric, Metric]:
    """`modes_covered`, a count, and `high_quality`, the share of samples near a mode."""
    samples_ND = all_rows(samples, "samples")
    if samples_ND.ndim != 2 or centres_MD.ndim != 2 or samples_ND.shape[1] != centres_MD.shape[1]:
        shapes = f"{tuple(samples_ND.shape)} and {tuple(centres_MD.shape)}"
        raise BadInput(f"samples and centres have shapes {shapes}; must be [N, D] and [M, D]")
    if len(centres_MD) == 0:
        raise BadInput("centres: there are none; a mixture has at least one mode")
    if not standard_deviation > 0 or not radius > 0 or at_least < 1:
        raise BadInput(
            f"standard_deviation {standard_deviation}, radius {radius}, at_least {at_least}: must all be above zero"
        )
    distance_NM = torch.cdist(samples_ND, centres_MD.to(samples_ND), compute_mode="donot_use_mm_for_euclid_dist")
    nearest_N = distance_NM.min(-1)
    near_N = nearest_N.values <= radius * standard_deviation
    counts_M = torch.bincount(nearest_N.indices[near_N])
    covered = int((counts_M >= at_least).sum())
    known = {
        **protocol,
        "modes": len(centres_MD),
        "standard_deviation": standard_deviation,
        "radius_in_deviations": radius,
        "samples_to_cover": at_least,
        "samples": len(samples_ND),
    }
    quality = average("high_quality", near_N.double(), unit="share", better="higher", protocol=known)
    return Metric("modes_covered", covered, "modes", "higher", len(centres_MD), None, known), quality
