"""Distributions of a row's values given the decoder's numbers, independent of each other.

Shape legend: ... any batch shape, D values of a row, K numbers of the decoder for each, M components.
"""

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from data_pipeline.config import Config
from data_pipeline.vector_data import VectorData
from pretrain.distributions.bernoulli import bernoulli_log_prob, check_binary
from pretrain.distributions.categorical import level_of, value_of
from pretrain.distributions.gaussian import draw_normal, normal_log_prob
from pretrain.distributions.logistic import draw_logistic_mixture, logistic_mixture_log_prob
from pretrain.layers.precision import at_least_float32


class BernoulliOutput(Config):
    """Zeros and ones."""

    kind: Literal["bernoulli"]

    @property
    def per_value(self) -> int:
        return 1

    @property
    def num_levels(self) -> int | None:
        return None

    def problem(self, data: VectorData) -> str | None:
        if data.values == "binary":
            return None
        return (
            f"output.kind bernoulli is of zeros and ones, the data of {data.values}; make it binary "
            "(data.pixels=threshold, sampled or dynamic), or choose another output"
        )

    def log_prob(self, numbers_DK: Tensor, x_D: Tensor) -> Tensor:
        """[..., D, K], [..., D] -> [...] nats; BadInput of values that are no zeros and ones."""
        return bernoulli_log_prob(numbers_DK[..., 0], check_binary(x_D))

    def mean(self, numbers_DK: Tensor) -> Tensor:
        """[..., D, K] -> [..., D]."""
        return at_least_float32(numbers_DK[..., 0]).sigmoid()

    def draw(self, numbers_DK: Tensor) -> Tensor:
        """[..., D, K] -> [..., D]."""
        return torch.bernoulli(self.mean(numbers_DK))


class GaussianOutput(Config):
    """Any numbers."""

    kind: Literal["gaussian"]
    std: float | None = Field(default=None, gt=0)
    """Of every value; null: the decoder says it."""

    @property
    def per_value(self) -> int:
        return 2 if self.std is None else 1

    @property
    def num_levels(self) -> int | None:
        return None

    def problem(self, data: VectorData) -> str | None:
        if self.std is not None or data.num_levels is None:
            return None
        return (
            f"output.std null lets the decoder say how narrow a density is, and at the data's {data.num_levels} levels "
            f"that has no bound; choose output.kind {self._for(data)}, or give output.std a number"
        )

    def _for(self, data: VectorData) -> str:
        return "bernoulli" if data.values == "binary" else f"logistic_mixture with levels={data.num_levels}"

    def _mean_and_log_std(self, numbers_DK: Tensor) -> tuple[Tensor, Tensor]:
        mean_D = at_least_float32(numbers_DK[..., 0])
        if self.std is None:
            return mean_D, at_least_float32(numbers_DK[..., 1])
        return mean_D, torch.full_like(mean_D, math.log(self.std))

    def log_prob(self, numbers_DK: Tensor, x_D: Tensor) -> Tensor:
        """[..., D, K], [..., D] -> [...] nats of density."""
        return normal_log_prob(x_D, *self._mean_and_log_std(numbers_DK)).sum(-1)

    def mean(self, numbers_DK: Tensor) -> Tensor:
        """[..., D, K] -> [..., D]."""
        return self._mean_and_log_std(numbers_DK)[0]

    def draw(self, numbers_DK: Tensor) -> Tensor:
        """[..., D, K] -> [..., D]."""
        return draw_normal(*self._mean_and_log_std(numbers_DK))


class LogisticMixtureOutput(Config):
    """Levels in [0, 1], each a discretized mixture of logistic distributions (Salimans et al. 2017)."""

    kind: Literal["logistic_mixture"]
    levels: int = Field(ge=2)
    num_components: int = Field(gt=0)

    @property
    def per_value(self) -> int:
        return 3 * self.num_components

    @property
    def num_levels(self) -> int | None:
        return self.levels

    def problem(self, data: VectorData) -> str | None:
        return None

    def log_prob(self, numbers_DK: Tensor, x_D: Tensor) -> Tensor:
        """[..., D, K], [..., D] -> [...] nats; BadInput of values outside of [0, 1]."""
        x_D = value_of(level_of(x_D, self.levels), self.levels, at_least_float32(x_D).dtype)
        return logistic_mixture_log_prob(x_D, *self._components(numbers_DK), self.levels).sum(-1)

    def _components(self, numbers_DK: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[..., D, M] logits of weights, means, log-scales; decoders that say nothing give the middle and a tenth."""
        weights_DM, means_DM, log_scales_DM = at_least_float32(numbers_DK).chunk(3, dim=-1)
        return weights_DM, means_DM + 0.5, log_scales_DM + math.log(0.1)

    def mean(self, numbers_DK: Tensor) -> Tensor:
        """[..., D, K] -> [..., D] of the mixture before it is cut to levels, within [0, 1]."""
        weights_DM, means_DM, _ = self._components(numbers_DK)
        return (weights_DM.softmax(-1) * means_DM).sum(-1).clamp(0, 1)

    def draw(self, numbers_DK: Tensor) -> Tensor:
        """[..., D, K] -> [..., D] levels."""
        return draw_logistic_mixture(*self._components(numbers_DK), self.levels)


OutputConfig = Annotated[BernoulliOutput | GaussianOutput | LogisticMixtureOutput, Field(discriminator="kind")]
