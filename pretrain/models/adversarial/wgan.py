"""WGAN-GP: a generator against a critic that estimates the Wasserstein-1 distance.

Gulrajani et al. 2017 (https://arxiv.org/abs/1704.00028), algorithm 1. With x data, y = G(z) a sample and
m = t x + (1 - t) y, t ~ U(0, 1), a point between them, each turn descends one of

    critic:    D(y) - D(x) + penalty * (|grad D(m)| - 1)^2
    generator: -D(G(z))

Shape legend: R rows, D values of a row, Z latents.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call

from data_pipeline.batch import VectorBatch
from pretrain.contract import Carry, Loss, Model
from pretrain.layers.precision import at_least_float32
from pretrain.models.vectors import Accepts, VectorModelConfig


class WGANConfig(VectorModelConfig):
    """Two perceptrons and the game between them."""

    kind: Literal["wgan"]
    num_values: int = Field(gt=0)
    """Width of a row; its values lie in [0, 1]."""
    latent_width: int = Field(gt=0)
    generator_widths: tuple[int, ...]
    """Widths of the hidden layers."""
    critic_widths: tuple[int, ...]
    penalty: float = Field(default=10.0, ge=0.0)
    critic_steps: int = Field(default=5, gt=0)
    """Turns of the critic before each turn of the generator."""

    accepts: ClassVar[Accepts] = "unit"
    players: ClassVar[tuple[str, ...]] = ("critic", "generator")

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.num_values,)

    def build(self) -> "WGAN":
        return WGAN(self)


def perceptron(widths: Sequence[int]) -> nn.Sequential:
    """Linear layers through these widths, with leaky ReLU between them."""
    layers: list[nn.Module] = []
    for width, following in pairwise(widths):
        layers += [nn.Linear(width, following), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers[:-1])


def frozen(module: nn.Module, values: Tensor) -> Tensor:
    """module(values) through which gradients reach the values but no parameter."""
    weights = {name: parameter.detach() for name, parameter in module.named_parameters()}
    return functional_call(module, weights, (values,))


class WGAN(Model):
    """The game; whoever does not play gets no gradient."""

    players = WGANConfig.players
    unit = "image"

    def __init__(self, config: WGANConfig) -> None:
        super().__init__()
        self.config = config
        self.critic = perceptron([config.num_values, *config.critic_widths, 1])
        self.generator = perceptron([config.latent_width, *config.generator_widths, config.num_values])

    def turns(self, step: int) -> tuple[str, ...]:
        return ("critic",) * self.config.critic_steps + ("generator",)

    def forward(self, batch: VectorBatch, carry: Carry | None, *, player: str, step: int) -> Loss:
        if player == "generator":
            score_R1 = frozen(self.critic, self._generate(batch.rows))
            return Loss(total=-at_least_float32(score_R1).sum(), count=batch.rows)
        fake_RD = self.sample(batch.rows)
        real_RD = batch.values.to(fake_RD.dtype)
        distance = (at_least_float32(self.critic(real_RD)) - at_least_float32(self.critic(fake_RD))).sum()
        norm_R = self._gradient_norm(real_RD, fake_RD)
        total = self.config.penalty * (norm_R - 1).square().sum() - distance
        metrics = {"wasserstein": distance.detach(), "gradient_norm": norm_R.detach().sum()}
        return Loss(total=total, count=batch.rows, metrics=metrics)

    def _gradient_norm(self, real_RD: Tensor, fake_RD: Tensor) -> Tensor:
        """[R] length of the critic's gradient at a random point between each pair, differentiable."""
        with torch.enable_grad():
            share_R1 = torch.rand_like(real_RD[:, :1])
            between_RD = (share_R1 * real_RD + (1 - share_R1) * fake_RD).detach().requires_grad_()
            (slope_RD,) = torch.autograd.grad(self.critic(between_RD).sum(), between_RD, create_graph=True)
        return torch.linalg.vector_norm(at_least_float32(slope_RD), dim=-1)

    def _generate(self, rows: int) -> Tensor:
        like = next(self.generator.parameters())
        z_RZ = torch.randn(rows, self.config.latent_width, dtype=like.dtype, device=like.device)
        return self.generator(z_RZ).sigmoid()

    @torch.no_grad()
    def sample(self, count: int) -> Tensor:
        """[count, D] in [0, 1]."""
        return self._generate(count)

    def flops_per_count(self) -> float:
        """The mean over a step's turns: a sample, and the critic four times (real, fake, between, slope) or once."""
        critic = 2.0 * sum(p.numel() for p in self.critic.parameters() if p.ndim == 2)
        generator = 2.0 * sum(p.numel() for p in self.generator.parameters() if p.ndim == 2)
        steps = self.config.critic_steps
        return generator + (4 * steps + 1) / (steps + 1) * critic
