"""Optimizers: which parameters get which settings; the same torch optimizer under every engine."""

import abc
from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import BeforeValidator, Field
from torch import nn

from data_pipeline.config import Config


class OptimizerSettings(Config, abc.ABC):
    """What every optimizer can be told, and says of itself."""

    moments: ClassVar[tuple[str, ...]]
    """Its state beside a count of steps, by torch's names; each has the shape of its parameter."""

    kind: str
    learning_rate: float = Field(gt=0.0)
    weight_decay: float = Field(default=0.0, ge=0.0)
    """Of parameters of two dimensions and more, times the learning rate."""

    def groups(self, parameters: Iterable[nn.Parameter]) -> list[dict[str, Any]]:
        """One player's parameters in two groups: decayed (two dimensions and more) and not."""
        parameters = list(parameters)
        groups = [
            {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": self.weight_decay},
            {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
        ]
        return [group for group in groups if group["params"]]

    @abc.abstractmethod
    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """An optimizer over one player's parameters."""


class AdamWConfig(OptimizerSettings):
    """AdamW (Loshchilov & Hutter 2019) with decay on matrices only, and clipping by the global gradient norm."""

    moments: ClassVar[tuple[str, ...]] = ("exp_avg", "exp_avg_sq")

    kind: Literal["adamw"] = "adamw"
    betas: tuple[float, float] = (0.9, 0.95)
    epsilon: float = Field(default=1e-8, gt=0.0)
    gradient_clip: float | None = Field(default=1.0, gt=0.0)
    """The largest norm of a player's whole gradient; None: no clipping."""

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.AdamW:
        groups = self.groups(parameters)
        return torch.optim.AdamW(groups, lr=self.learning_rate, betas=self.betas, eps=self.epsilon, fused=True)


class SGDConfig(OptimizerSettings):
    """Gradient descent, w <- w - rate (gradient + weight_decay w), and nothing that is remembered."""

    moments: ClassVar[tuple[str, ...]] = ()

    kind: Literal["sgd"]
    gradient_clip: float | None = Field(default=None, gt=0.0)
    """The largest norm of a player's whole gradient; None: no clipping."""

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.SGD:
        return torch.optim.SGD(self.groups(parameters), lr=self.learning_rate)


def _adamw_unless_said(values: Any) -> Any:
    return {"kind": "adamw", **values} if isinstance(values, dict) else values


OptimizerConfig = Annotated[AdamWConfig | SGDConfig, Field(discriminator="kind"), BeforeValidator(_adamw_unless_said)]
"""Any optimizer's settings, told apart by `kind`; without one they are AdamW's."""
