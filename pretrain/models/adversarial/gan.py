"""Generative adversarial networks: a generator against a critic, in one of the games of `games`.

Goodfellow et al. 2014 (https://arxiv.org/abs/1406.2661) and Arjovsky et al. 2017 (https://arxiv.org/abs/1701.07875),
algorithm 1 of each: some turns of the critic, then one of the generator. A sample is y = G(z), z ~ N(0, I). What is
called the critic here is the discriminator of the first paper; its score is the logit of "this is data".

Shape legend: R rows, D values of a row, Z latents.
"""

import math
from functools import partial
from typing import ClassVar, Literal

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor

from data_pipeline.batch import VectorBatch
from data_pipeline.vector_data import VectorData
from pretrain.contract import Carry, Loss, Model
from pretrain.layers.frozen import frozen
from pretrain.layers.networks import NetworkConfig, flops_of_row
from pretrain.models.adversarial.games import Game
from pretrain.models.vectors import VectorModelConfig


class GANConfig(VectorModelConfig):
    """Two networks and the game between them."""

    kind: Literal["gan"]
    row_shape: tuple[PositiveInt, ...] = Field(min_length=1)
    """[channels, height, width] of an image, [n] of rows whose order means nothing to the networks."""
    values: Literal["unit", "real"]
    """Of a sample: between 0 and 1 by a sigmoid, or any number."""
    latent_width: int = Field(gt=0)
    generator: NetworkConfig
    critic: NetworkConfig
    game: Game
    critic_steps: int = Field(default=5, gt=0)
    """Turns of the critic before each turn of the generator."""

    players: ClassVar[tuple[str, ...]] = ("critic", "generator")

    @property
    def shape(self) -> tuple[int, ...]:
        return self.row_shape

    @model_validator(mode="after")
    def _check(self) -> "GANConfig":
        for player in self.players:
            problem = getattr(self, player).problem(self.row_shape)
            if problem is not None:
                raise ValueError(f"{player}: {problem}")
        return self

    def problem(self, data: VectorData) -> str | None:
        """Why it cannot learn this data, and what to do, or None."""
        if self.values == "unit" and data.values == "real":
            return "the model's samples lie between 0 and 1, the data anywhere; set model.values=real"
        return super().problem(data)

    def build(self) -> "GAN":
        return GAN(self)


class GAN(Model):
    """The game; whoever does not play gets no gradient."""

    players = GANConfig.players
    unit = "image"
    lower_is_better: ClassVar[frozenset[str]] = frozenset()  # every value is that of a game, against this very opponent

    def __init__(self, config: GANConfig) -> None:
        super().__init__()
        self.config = config
        self.critic = config.critic.reader(config.row_shape, 1)
        self.generator = config.generator.writer(config.latent_width, config.row_shape)

    def turns(self, step: int) -> tuple[str, ...]:
        return ("critic",) * self.config.critic_steps + ("generator",)

    def forward(self, batch: VectorBatch, carry: Carry | None, *, player: str, step: int) -> Loss:
        game = self.config.game
        if player == "generator":
            score_R1 = frozen(self.critic, self.decode(self._latents(batch.rows)))
            return Loss(total=game.generator_loss(score_R1), count=batch.rows)
        fake_RD = self.sample(batch.rows)
        total, metrics = game.critic_loss(self.critic, batch.values.to(fake_RD.dtype), fake_RD)
        return Loss(total=total, count=batch.rows, metrics=metrics)

    def after_turn(self, player: str, step: int) -> None:
        if player == "critic":
            self.config.game.after_critic(self.critic)

    def _latents(self, rows: int) -> Tensor:
        like = next(self.generator.parameters())
        return torch.randn(rows, self.config.latent_width, dtype=like.dtype, device=like.device)

    def decode(self, latents_NZ: Tensor) -> Tensor:
        """[N, D] the samples of these latents."""
        made_ND: Tensor = self.generator(latents_NZ)
        return made_ND.sigmoid() if self.config.values == "unit" else made_ND

    @torch.no_grad()
    def sample(self, count: int) -> Tensor:
        """[count, D]."""
        return self.decode(self._latents(count))

    def flops_per_count(self) -> float:
        """The mean over a step's turns: a sample, and the critic as often as the game asks it, or once."""
        config, steps = self.config, self.config.critic_steps
        shape, latents = config.row_shape, config.latent_width
        generator = flops_of_row(partial(config.generator.writer, latents, shape), latents)
        critic = flops_of_row(partial(config.critic.reader, shape, 1), math.prod(shape))
        return generator + (config.game.critic_passes * steps + 1) / (steps + 1) * critic
