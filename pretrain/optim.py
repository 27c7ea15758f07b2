"""Optimizers: which parameters get which settings; the same torch optimizer under every engine."""

from collections.abc import Iterable
from typing import Literal

import torch
from pydantic import Field
from torch import nn

from data_pipeline.config import Config

MOMENTS = ("exp_avg", "exp_avg_sq")
"""AdamW's state beside its step count; each has the shape of its parameter."""


class OptimizerConfig(Config):
    """AdamW (Loshchilov & Hutter 2019) with decay on matrices only, and clipping by the global gradient norm."""

    kind: Literal["adamw"] = "adamw"
    learning_rate: float = Field(gt=0.0)
    betas: tuple[float, float] = (0.9, 0.95)
    epsilon: float = Field(default=1e-8, gt=0.0)
    weight_decay: float = Field(default=0.0, ge=0.0)
    gradient_clip: float | None = Field(default=1.0, gt=0.0)
    """The largest norm of a player's whole gradient; None: no clipping."""

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.AdamW:
        """An optimizer over one player's parameters in two groups: decayed (two dimensions and more) and not."""
        parameters = list(parameters)
        groups = [
            {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": self.weight_decay},
            {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        return torch.optim.AdamW(groups, lr=self.learning_rate, betas=self.betas, eps=self.epsilon, fused=True)
