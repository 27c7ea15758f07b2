"""Variational autoencoders: latents z ~ N(0, 1), a decoder p(x given z), an encoder q(z given x).

Kingma & Welling 2014 (https://arxiv.org/abs/1312.6114), Rezende et al. 2014 (https://arxiv.org/abs/1401.4082). Samples
of q are functions of noise, so the gradient of a bound of log p(x) goes through them. Which bound is a field
(`bounds`), so are the posterior (`posteriors`), what a value's distribution is (`outputs`), and the networks.

Shape legend: R rows, D values of a row, Z latents, K samples of each row's latents, E outputs of the encoder.
"""

from typing import Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from data_pipeline.batch import VectorBatch
from data_pipeline.vector_data import VectorData
from pretrain.contract import Carry, Loss, Model
from pretrain.distributions.gaussian import standard_normal_log_prob
from pretrain.layers.precision import at_least_float32
from pretrain.models.latent.bounds import BoundConfig, ELBOConfig, importance_weighted, weighted_kl
from pretrain.models.latent.networks import NetworkConfig, compute, flops_of
from pretrain.models.latent.outputs import OutputConfig
from pretrain.models.latent.posteriors import PosteriorConfig
from pretrain.models.vectors import VectorModelConfig

DECODED_AT_ONCE = 16_384
"""Rows of latents, when a bound of many samples is asked for."""


class VAEConfig(VectorModelConfig):
    """Networks, latents and the bound."""

    kind: Literal["vae"]
    row_shape: tuple[PositiveInt, ...] = Field(min_length=1)
    """Channels, height and width of images; or one number."""
    latent_width: int = Field(gt=0)
    encoder: NetworkConfig
    decoder: NetworkConfig
    posterior: PosteriorConfig
    output: OutputConfig
    bound: BoundConfig

    @property
    def shape(self) -> tuple[int, ...]:
        return self.row_shape

    @property
    def num_levels(self) -> int | None:
        return self.output.num_levels

    def problem(self, data: VectorData) -> str | None:
        return super().problem(data) or self.output.problem(data)

    def build(self) -> "VAE":
        return VAE(self)


class VAE(Model):
    """An encoder and a decoder, trained together."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        width = config.latent_width
        encoded = 2 * width + config.posterior.context_width
        self.encoder = config.encoder.encoder(config.row_shape, encoded)
        self.posterior = config.posterior.build(width)
        self.decoder = config.decoder.decoder(width, config.row_shape, config.output.per_value)
        samples = 1 if isinstance(config.bound, ELBOConfig) else config.bound.samples
        self._flops = flops_of(self.encoder) + samples * (flops_of(self.posterior) + flops_of(self.decoder))

    def _encoded(self, batch: VectorBatch) -> Tensor:
        return compute(self.encoder, batch.values)

    def log_likelihood(self, z_KRZ: Tensor, batch: VectorBatch) -> Tensor:
        """[K, R] log p(x given z), in nats."""
        numbers_NDK = compute(self.decoder, z_KRZ.flatten(0, 1))
        values_KRD = batch.values.expand(len(z_KRZ), -1, -1)
        return self.config.output.log_prob(numbers_NDK.unflatten(0, z_KRZ.shape[:2]), values_KRD)

    def forward(self, batch: VectorBatch, carry: Carry | None, *, player: str, step: int) -> Loss:
        bound = self.config.bound
        if isinstance(bound, ELBOConfig):
            return self._elbo(batch, bound)
        log_w_KR = self._log_weights(batch, self._encoded(batch), bound.samples)
        return Loss(total=-importance_weighted(log_w_KR).sum(), count=batch.rows)

    def _elbo(self, batch: VectorBatch, bound: ELBOConfig) -> Loss:
        encoded_RE = self._encoded(batch)
        z_KRZ, log_q_KR = self.posterior(encoded_RE, 1)
        reconstruction = -self.log_likelihood(z_KRZ, batch).sum()
        kl_RZ = self.posterior.kl(encoded_RE)
        if kl_RZ is None:
            kl_RZ = (log_q_KR - standard_normal_log_prob(z_KRZ))[0, :, None]
        total = reconstruction + weighted_kl(kl_RZ, beta=bound.beta, free_bits=bound.free_bits)
        metrics = {"reconstruction_nats": reconstruction.detach(), "kl_nats": kl_RZ.detach().sum()}
        return Loss(total=total, count=batch.rows, metrics=metrics)

    def _log_weights(self, batch: VectorBatch, encoded_RE: Tensor, samples: int) -> Tensor:
        """[K, R] log p(x, z) - log q(z given x)."""
        z_KRZ, log_q_KR = self.posterior(encoded_RE, samples)
        return self.log_likelihood(z_KRZ, batch) + standard_normal_log_prob(z_KRZ) - log_q_KR

    def log_prob_bound(self, batch: VectorBatch, samples: int) -> Tensor:
        """[R] the importance weighted bound of so many samples, in nats, whichever bound was climbed."""
        encoded_RE = self._encoded(batch)
        most = max(DECODED_AT_ONCE // batch.rows, 1)
        parts = [min(most, samples - begun) for begun in range(0, samples, most)]
        return importance_weighted(torch.cat([self._log_weights(batch, encoded_RE, part) for part in parts]))

    def encode(self, batch: VectorBatch) -> Tensor:
        """[R, Z] the posterior's mean; with a flow, where its noise's mean goes."""
        return self.posterior.centre(self._encoded(batch))

    def decode(self, latents_NZ: Tensor) -> Tensor:
        """[N, D] the mean."""
        return self.config.output.mean(compute(self.decoder, latents_NZ))

    @torch.no_grad()
    def sample(self, count: int) -> Tensor:
        """[count, D]"""
        like = at_least_float32(next(self.decoder.parameters()))
        z_NZ = torch.randn(count, self.config.latent_width, dtype=like.dtype, device=like.device)
        return self.config.output.draw(compute(self.decoder, z_NZ))

    def flops_per_count(self) -> float:
        return self._flops
