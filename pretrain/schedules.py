"""Learning-rate schedules as pure functions of the step: each gives the factor in [0, 1] of the peak rate.

All rise linearly from 0 over `warmup_steps` (step 0 has 1/warmup_steps of the peak). Cosine: Loshchilov & Hutter 2017.
WSD (warm-up, stable, decay): Hu et al. 2024, with a linear decay.
"""

import math
from typing import Literal

from pydantic import Field

from data_pipeline.config import Config


class ScheduleConfig(Config):
    """Which schedule, and where it ends."""

    kind: Literal["constant", "linear", "cosine", "wsd"]
    warmup_steps: int = Field(default=0, ge=0)
    final_fraction: float = Field(default=0.0, ge=0.0, le=1.0)
    """Of the peak rate, reached at the end: the step after the last would have it."""
    decay_fraction: float = Field(default=0.2, gt=0.0, le=1.0)
    """`wsd` only: the last part of the run that decays."""

    def factor(self, step: int, total_steps: int) -> float:
        """The factor for `step` (from 0) of a run of `total_steps`."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        span = max(total_steps - self.warmup_steps, 1)
        progress = min((step - self.warmup_steps) / span, 1.0)
        return self.final_fraction + (1.0 - self.final_fraction) * self._falling(progress)

    def _falling(self, progress: float) -> float:
        if self.kind == "constant":
            return 1.0
        if self.kind == "linear":
            return 1.0 - progress
        if self.kind == "cosine":
            return 0.5 * (1.0 + math.cos(math.pi * progress))
        return min((1.0 - progress) / self.decay_fraction, 1.0)
