"""The games between a generator and a critic: what each descends, given the critic's scores D of data x and samples y.

Cross-entropy (Goodfellow et al. 2014, https://arxiv.org/abs/1406.2661, algorithm 1), with s = sigmoid:

    critic:    -log s(D(x)) - log(1 - s(D(y)))
    generator: log(1 - s(D(y))) (minimax), or -log s(D(y)) (non-saturating: its gradient is large where D wins)

The best critic has s(D) = p / (p + q) of the densities p of data and q of samples, and costs ln 4 - 2 JSD(p, q).
Wasserstein (Arjovsky et al. 2017, https://arxiv.org/abs/1701.07875, algorithm 1):

    critic:    D(y) - D(x), with each of its parameters clipped to [-bound, bound] after its turns
    generator: -D(y)

so that D(x) - D(y) is below K times the Wasserstein-1 distance, with K unknown. With a gradient penalty instead
(Gulrajani et al. 2017, https://arxiv.org/abs/1704.00028, algorithm 1), m = t x + (1 - t) y and t ~ U(0, 1), K is 1:

    critic:    D(y) - D(x) + penalty * (|grad D(m)| - 1)^2

Shape legend: R rows, D values of a row.
"""

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from data_pipeline.config import Config
from pretrain.layers.precision import at_least_float32

Metrics = dict[str, Tensor]


class CrossEntropyGame(Config):
    """The critic tells data from samples."""

    kind: Literal["cross_entropy"]
    generator_descends: Literal["minimax", "non_saturating"] = "non_saturating"

    def critic_loss(self, critic: nn.Module, real_RD: Tensor, fake_RD: Tensor) -> tuple[Tensor, Metrics]:
        """[] the sum over rows, and `jensen_shannon`: below that divergence whatever the critic, in expectation."""
        real_R1, fake_R1 = at_least_float32(critic(real_RD)), at_least_float32(critic(fake_RD))
        total = (F.softplus(-real_R1) + F.softplus(fake_R1)).sum()
        return total, {"jensen_shannon": (len(real_RD) * math.log(4.0) - total.detach()) / 2}

    def generator_loss(self, score_R1: Tensor) -> Tensor:
        """[] the sum over rows, of the critic's scores of samples."""
        if self.generator_descends == "minimax":
            return -F.softplus(at_least_float32(score_R1)).sum()
        return F.softplus(-at_least_float32(score_R1)).sum()

    def after_critic(self, critic: nn.Module) -> None:
        """Nothing to do."""

    @property
    def critic_passes(self) -> int:
        """Of a critic's turn, for each row."""
        return 2


class ClippedWassersteinGame(Config):
    """The critic's slope is bounded through its parameters."""

    kind: Literal["wasserstein_clipping"]
    bound: float = Field(default=0.01, gt=0.0)
    """Algorithm 1: c."""

    def critic_loss(self, critic: nn.Module, real_RD: Tensor, fake_RD: Tensor) -> tuple[Tensor, Metrics]:
        """[] the sum over rows, and `wasserstein_up_to_scale`, which is minus that."""
        gap = (at_least_float32(critic(real_RD)) - at_least_float32(critic(fake_RD))).sum()
        return -gap, {"wasserstein_up_to_scale": gap.detach()}

    def generator_loss(self, score_R1: Tensor) -> Tensor:
        """[] the sum over rows, of the critic's scores of samples."""
        return -at_least_float32(score_R1).sum()

    @torch.no_grad()
    def after_critic(self, critic: nn.Module) -> None:
        """Clips every parameter, biases too."""
        for parameter in critic.parameters():
            parameter.clamp_(-self.bound, self.bound)

    @property
    def critic_passes(self) -> int:
        """Of a critic's turn, for each row."""
        return 2


class PenalizedWassersteinGame(Config):
    """The critic's slope is drawn towards 1 between data and samples."""

    kind: Literal["wasserstein_penalty"]
    penalty: float = Field(default=10.0, ge=0.0)
    """Algorithm 1: lambda."""

    def critic_loss(self, critic: nn.Module, real_RD: Tensor, fake_RD: Tensor) -> tuple[Tensor, Metrics]:
        """[] the sum over rows, the distance `wasserstein` that it estimates, and the slopes' `gradient_norm`."""
        distance = (at_least_float32(critic(real_RD)) - at_least_float32(critic(fake_RD))).sum()
        norm_R = gradient_norm(critic, real_RD, fake_RD)
        total = self.penalty * (norm_R - 1).square().sum() - distance
        return total, {"wasserstein": distance.detach(), "gradient_norm": norm_R.detach().sum()}

    def generator_loss(self, score_R1: Tensor) -> Tensor:
        """[] the sum over rows, of the critic's scores of samples."""
        return -at_least_float32(score_R1).sum()

    def after_critic(self, critic: nn.Module) -> None:
        """Nothing to do."""

    @property
    def critic_passes(self) -> int:
        """Of a critic's turn, for each row: data, samples, points between and their slope."""
        return 4


Game = Annotated[CrossEntropyGame | ClippedWassersteinGame | PenalizedWassersteinGame, Field(discriminator="kind")]
"""Chosen by `kind`."""


def gradient_norm(critic: nn.Module, real_RD: Tensor, fake_RD: Tensor) -> Tensor:
    """[R] length of the critic's gradient at a random point between each pair, differentiable."""
    with torch.enable_grad():
        share_R1 = torch.rand_like(real_RD[:, :1])
        between_RD = (share_R1 * real_RD + (1 - share_R1) * fake_RD).detach().requires_grad_()
        (slope_RD,) = torch.autograd.grad(critic(between_RD).sum(), between_RD, create_graph=True)
    return torch.linalg.vector_norm(at_least_float32(slope_RD), dim=-1)
