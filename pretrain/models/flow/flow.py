"""Normalizing flows: an invertible network between data and noise, which gives densities, samples and latents.

With f a composition of bijections (`architectures`) and p a standard normal or logistic density of its values,

    log p(x) = sum_i log p(f(x)_i) + log |det df/dx|

Data of levels are dequantized by uniform noise u and perhaps taken to the whole line by a logit first
(`pretrain.bijections.logit`); the objective is then E_u log p(x + u), a lower bound of log P(x), and so is what such a
flow says of data: with K draws of noise, log 1/K sum_k p(x + u_k).

Shape legend: R rows, D values of a row, K draws of noise.
"""

import math
from typing import Literal

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor

from data_pipeline.batch import VectorBatch
from data_pipeline.vector_data import VectorData
from pretrain.bijections.bijection import Bijection, Composition
from pretrain.bijections.cost import flops_per_row
from pretrain.bijections.logit import Logit, dequantize, quantize
from pretrain.contract import Carry, Loss, Model
from pretrain.distributions.gaussian import standard_normal_log_prob
from pretrain.distributions.logistic import draw_standard_logistic, standard_logistic_log_prob
from pretrain.layers.precision import at_least_float32
from pretrain.models.flow.architectures import ArchitectureConfig
from pretrain.models.vectors import VectorModelConfig

Base = Literal["normal", "logistic"]


class FlowConfig(VectorModelConfig):
    """A flow of rows of one shape."""

    kind: Literal["flow"]
    row_shape: tuple[PositiveInt, ...] = Field(min_length=1)
    """Channels, height and width of images; or one number."""
    levels: int | None = Field(default=None, ge=2)
    """Of data in [0, 1] that are dequantized; null: data are numbers of which the flow is a density."""
    logit_margin: float | None = Field(default=None, gt=0.0, lt=0.5)
    """Kept from 0 and 1 before the logit of dequantized data; null: no logit."""
    base: Base = "normal"
    bijections: ArchitectureConfig

    @model_validator(mode="after")
    def _check(self) -> "FlowConfig":
        if self.logit_margin is not None and self.levels is None:
            raise ValueError(
                f"logit_margin={self.logit_margin:g}: the logit is of dequantized data; set levels, or leave it out"
            )
        return self

    @property
    def shape(self) -> tuple[int, ...]:
        return self.row_shape

    @property
    def num_levels(self) -> int | None:
        return self.levels

    def problem(self, data: VectorData) -> str | None:
        found = super().problem(data)
        if found or self.levels is not None or data.num_levels is None:
            return found
        return (
            f"the flow is of densities, but the data has {data.num_levels} levels, at which a density has no bound; "
            f"dequantize them (model.levels={data.num_levels})"
        )

    def build(self) -> "DensityFlow | DequantizedFlow":
        return DensityFlow(self) if self.levels is None else DequantizedFlow(self)


class Flow(Model):
    """What flows of numbers and of levels have in common."""

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        self.config = config
        parts: list[Bijection] = [] if config.logit_margin is None else [Logit(config.logit_margin)]
        self.bijection = Composition([*parts, config.bijections.build(config.row_shape)])
        self._flops = flops_per_row(self.bijection)

    def _values(self, batch: VectorBatch) -> tuple[Tensor, Tensor]:
        """[R, D] numbers that the bijection reads, and [R] the log-determinant of how they were made."""
        x_RD = at_least_float32(batch.values)
        return x_RD, x_RD.new_zeros(len(x_RD))

    def _log_density(self, batch: VectorBatch) -> Tensor:
        """[R] nats; of levels with one draw of noise."""
        x_RD, made_R = self._values(batch)
        z_RD, log_det_R = self.bijection(x_RD)
        base = standard_normal_log_prob if self.config.base == "normal" else standard_logistic_log_prob
        return base(z_RD) + log_det_R + made_R

    def forward(self, batch: VectorBatch, carry: Carry | None, *, player: str, step: int) -> Loss:
        return Loss(total=-self._log_density(batch).sum(), count=batch.rows)

    def encode(self, batch: VectorBatch) -> Tensor:
        """[R, D]; of levels the middle of their bins."""
        return self.bijection(at_least_float32(batch.values))[0]

    def decode(self, latents_NZ: Tensor) -> Tensor:
        """[N, D]"""
        return self.bijection.inverse(at_least_float32(latents_NZ))

    @torch.no_grad()
    def sample(self, count: int) -> Tensor:
        """[count, D]"""
        like = at_least_float32(next(self.parameters()))
        empty_ND = torch.empty(count, math.prod(self.config.row_shape), dtype=like.dtype, device=like.device)
        z_ND = torch.randn_like(empty_ND) if self.config.base == "normal" else draw_standard_logistic(empty_ND)
        return self.decode(z_ND)

    def flops_per_count(self) -> float:
        return self._flops


class DensityFlow(Flow):
    """Of any numbers, whose density it knows."""

    def log_prob(self, batch: VectorBatch) -> Tensor:
        """[R] log density, in nats."""
        return self._log_density(batch)


class DequantizedFlow(Flow):
    """Of levels in [0, 1], whose probability it bounds."""

    unit = "image"

    @property
    def levels(self) -> int:
        assert self.config.levels is not None, "chosen by FlowConfig.build"
        return self.config.levels

    def _values(self, batch: VectorBatch) -> tuple[Tensor, Tensor]:
        values_RD = at_least_float32(batch.values)
        return dequantize(values_RD, torch.rand_like(values_RD), self.levels)

    def log_prob_bound(self, batch: VectorBatch, samples: int) -> Tensor:
        """[R] log 1/K sum_k p(x + u_k) of K `samples` of noise: its mean is below log P(x)."""
        log_p_KR = torch.stack([self._log_density(batch) for _ in range(samples)])
        return log_p_KR.logsumexp(0) - math.log(samples)

    def encode(self, batch: VectorBatch) -> Tensor:
        values_RD = at_least_float32(batch.values)
        return self.bijection(dequantize(values_RD, torch.full_like(values_RD, 0.5), self.levels)[0])[0]

    def decode(self, latents_NZ: Tensor) -> Tensor:
        """[N, D] levels in [0, 1]."""
        return quantize(self.bijection.inverse(at_least_float32(latents_NZ)), self.levels)
