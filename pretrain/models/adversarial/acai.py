"""ACAI: an autoencoder whose interpolations a critic cannot tell from reconstructions.

Berthelot et al. 2019 (https://arxiv.org/abs/1807.07543), section 2. With encoder f, decoder g, critic d, data x_1 and
x_2, a share alpha ~ U(0, 1/2) and the interpolation y = g(alpha f(x_1) + (1 - alpha) f(x_2)), each turn descends one of

    autoencoder: |x - g(f(x))|^2 + lambda d(y)^2                                       (equation 1)
    critic:      (d(y) - alpha)^2 + d(gamma x + (1 - gamma) g(f(x)))^2                 (equation 2)

so that the critic's best answer is E[alpha given y], and the autoencoder wants it to be 0, which is that of data. The
squared error is the mean over a row's values, so that lambda weighs the same at every size. A row's partner x_2 is the
row before it.

Shape legend: R rows, D values of a row, Z latents, N latents of any number, P points of a path.
"""

import math
from functools import partial
from typing import ClassVar, Literal

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from data_pipeline.batch import VectorBatch
from pretrain.contract import Carry, Loss, Model
from pretrain.layers.frozen import frozen
from pretrain.layers.networks import NetworkConfig, flops_of_row
from pretrain.layers.precision import at_least_float32
from pretrain.models.vectors import Accepts, VectorModelConfig


class ACAIConfig(VectorModelConfig):
    """Three networks and how much the critic counts."""

    kind: Literal["acai"]
    row_shape: tuple[PositiveInt, ...] = Field(min_length=1)
    """[channels, height, width] of an image, [n] of rows whose order means nothing to the networks."""
    latent_width: int = Field(gt=0)
    encoder: NetworkConfig
    decoder: NetworkConfig
    critic: NetworkConfig
    regularization: float = Field(default=0.5, ge=0.0)
    """Equation 1: lambda; 0 is the plain autoencoder."""
    data_share: float = Field(default=0.2, ge=0.0, le=1.0)
    """Equation 2: gamma."""

    accepts: ClassVar[Accepts] = "unit"
    fewest_rows: ClassVar[int] = 2  # a row's partner is another row
    players: ClassVar[tuple[str, ...]] = ("autoencoder", "critic")

    @property
    def shape(self) -> tuple[int, ...]:
        return self.row_shape

    @model_validator(mode="after")
    def _check(self) -> "ACAIConfig":
        for name in ("encoder", "decoder", "critic"):
            problem = getattr(self, name).problem(self.row_shape)
            if problem is not None:
                raise ValueError(f"{name}: {problem}")
        return self

    def build(self) -> "ACAI":
        return ACAI(self)


class Autoencoder(nn.Module):
    """Encoder and decoder, which are one player."""

    def __init__(self, config: ACAIConfig) -> None:
        super().__init__()
        self.encoder = config.encoder.reader(config.row_shape, config.latent_width)
        self.decoder = config.decoder.writer(config.latent_width, config.row_shape)

    def decode(self, latents_NZ: Tensor) -> Tensor:
        """[N, D] in [0, 1]."""
        made_ND: Tensor = self.decoder(latents_NZ)
        return made_ND.sigmoid()


class ACAI(Model):
    """The game; whoever does not play gets no gradient."""

    players = ACAIConfig.players
    unit = "image"
    lower_is_better = frozenset({"squared_error"})  # the others depend on how good the opponent is

    def __init__(self, config: ACAIConfig) -> None:
        super().__init__()
        self.config = config
        self.autoencoder = Autoencoder(config)
        self.critic = config.critic.reader(config.row_shape, 1)

    def forward(self, batch: VectorBatch, carry: Carry | None, *, player: str, step: int) -> Loss:
        x_RD = batch.values.to(self._like().dtype)
        alpha_R1 = torch.rand_like(x_RD[:, :1]) / 2
        if player == "autoencoder":
            return self._autoencoder_loss(x_RD, alpha_R1)
        return self._critic_loss(x_RD, alpha_R1)

    def _autoencoder_loss(self, x_RD: Tensor, alpha_R1: Tensor) -> Loss:
        """Equation 1."""
        z_RZ = self.autoencoder.encoder(x_RD)
        error_RD = at_least_float32(self.autoencoder.decode(z_RZ)) - at_least_float32(x_RD)
        error = error_RD.square().mean(-1).sum()
        fooled = at_least_float32(frozen(self.critic, self._mixed(z_RZ, alpha_R1))).square().sum()
        metrics = {"squared_error": error.detach(), "critic_on_mixed": fooled.detach()}
        return Loss(total=error + self.config.regularization * fooled, count=len(x_RD), metrics=metrics)

    def _critic_loss(self, x_RD: Tensor, alpha_R1: Tensor) -> Loss:
        """Equation 2."""
        with torch.no_grad():
            z_RZ = self.autoencoder.encoder(x_RD)
            mixed_RD, made_RD = self._mixed(z_RZ, alpha_R1), self.autoencoder.decode(z_RZ)
            share = self.config.data_share
            real_RD = share * x_RD + (1 - share) * made_RD
        said_R1 = at_least_float32(self.critic(mixed_RD))
        alpha = (said_R1 - alpha_R1).square().sum()
        real = at_least_float32(self.critic(real_RD)).square().sum()
        metrics = {"alpha_error": alpha.detach(), "reality_error": real.detach()}
        return Loss(total=alpha + real, count=len(x_RD), metrics=metrics)

    def _mixed(self, z_RZ: Tensor, alpha_R1: Tensor) -> Tensor:
        """[R, D] decoded from alpha of each row's latents and the rest of its partner's."""
        return self.autoencoder.decode(alpha_R1 * z_RZ + (1 - alpha_R1) * z_RZ.roll(1, dims=0))

    def _like(self) -> Tensor:
        return next(self.autoencoder.parameters())

    def encode(self, batch: VectorBatch) -> Tensor:
        """[R, Z]."""
        return at_least_float32(self.autoencoder.encoder(batch.values.to(self._like().dtype)))

    def decode(self, latents_NZ: Tensor) -> Tensor:
        """[N, D] in [0, 1]."""
        return at_least_float32(self.autoencoder.decode(latents_NZ.to(self._like().dtype)))

    def interpolate(self, first: VectorBatch, last: VectorBatch, points: int) -> Tensor:
        """[R, P, D] decoded from P latents on the straight line between those of each pair, both ends included."""
        shares_P1 = torch.linspace(0.0, 1.0, points, device=self._like().device)[:, None]
        from_RZ, to_RZ = self.encode(first), self.encode(last)
        path_RPZ = torch.lerp(from_RZ[:, None], to_RZ[:, None], shares_P1.to(from_RZ.dtype))
        return self.decode(path_RPZ.flatten(0, 1)).unflatten(0, (len(from_RZ), points))

    def flops_per_count(self) -> float:
        """The mean over a step's two turns: one encoding and two decodings in each, three passes of the critic."""
        config, shape = self.config, self.config.row_shape
        values = math.prod(shape)
        encoder = flops_of_row(partial(config.encoder.reader, shape, config.latent_width), values)
        decoder = flops_of_row(partial(config.decoder.writer, config.latent_width, shape), config.latent_width)
        critic = flops_of_row(partial(config.critic.reader, shape, 1), values)
        return encoder + 2 * decoder + 1.5 * critic
