"""Approximate posteriors q(z given x) of continuous latents.

Gaussian: z = m(x) + exp(a(x)) e with standard normal e (Kingma & Welling 2014). With a flow: autoregressive bijections
that read a context h(x) go on from there (Kingma et al. 2016, https://arxiv.org/abs/1606.04934, algorithm 1), each with
a reversal, and

    log q(z given x) = log N(e) - sum a(x) - sum over bijections of log |det|

Shape legend: R rows, Z latents, K samples of each row, C values of the context, E = 2 Z + C of the encoder's outputs.
"""

from collections.abc import Iterable
from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from data_pipeline.config import BadInput, Config
from pretrain.bijections.autoregressive import MaskedAutoregressive
from pretrain.distributions.gaussian import draw_normal, kl_to_standard_normal, normal_log_prob
from pretrain.layers.precision import at_least_float32


class GaussianPosteriorConfig(Config):
    """Independent dimensions."""

    kind: Literal["gaussian"]

    @property
    def context_width(self) -> int:
        return 0

    def build(self, latent_width: int) -> "Posterior":
        return Posterior(latent_width, [])


class FlowPosteriorConfig(Config):
    """Inverse autoregressive flow on top of a Gaussian."""

    kind: Literal["iaf"]
    num_layers: int = Field(gt=0)
    hidden_widths: Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
    context_width: int = Field(gt=0)

    def build(self, latent_width: int) -> "Posterior":
        if latent_width < 2:
            raise BadInput(
                f"model.latent_width {latent_width}: must be at least 2 for posterior.kind iaf; or use gaussian"
            )
        layers = (
            MaskedAutoregressive(latent_width, self.hidden_widths, self.context_width) for _ in range(self.num_layers)
        )
        return Posterior(latent_width, layers)


PosteriorConfig = Annotated[GaussianPosteriorConfig | FlowPosteriorConfig, Field(discriminator="kind")]


class Posterior(nn.Module):
    """Latents, and their log-densities, of the encoder's outputs."""

    def __init__(self, latent_width: int, layers: Iterable[MaskedAutoregressive]) -> None:
        super().__init__()
        self.latent_width = latent_width
        self.layers = nn.ModuleList(layers)

    def _split(self, encoded_RE: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[R, Z] mean, [R, Z] log-standard deviation, [R, C] context."""
        width = self.latent_width
        mean_RZ, log_std_RZ, context_RC = encoded_RE.split([width, width, encoded_RE.shape[1] - 2 * width], dim=1)
        return at_least_float32(mean_RZ), at_least_float32(log_std_RZ), context_RC

    def forward(self, encoded_RE: Tensor, samples: int) -> tuple[Tensor, Tensor]:
        """[K, R, Z] latents and [K, R] log q of them, in nats; differentiable through both."""
        mean_RZ, log_std_RZ, context_RC = self._split(encoded_RE)
        first_KRZ = draw_normal(mean_RZ.expand(samples, -1, -1), log_std_RZ.expand(samples, -1, -1))
        log_q_KR = normal_log_prob(first_KRZ, mean_RZ, log_std_RZ).sum(-1)
        z_NZ, log_det_N = self._flow(first_KRZ.flatten(0, 1), context_RC.repeat(samples, 1))
        return z_NZ.view_as(first_KRZ), log_q_KR - log_det_N.view_as(log_q_KR)

    def _flow(self, z_NZ: Tensor, context_NC: Tensor) -> tuple[Tensor, Tensor]:
        log_det_N = z_NZ.new_zeros(len(z_NZ))
        for layer in self.layers:
            z_NZ, part_N = layer(z_NZ, context_NC)
            z_NZ, log_det_N = z_NZ.flip(1), log_det_N + part_N
        return z_NZ, log_det_N

    def kl(self, encoded_RE: Tensor) -> Tensor | None:
        """[R, Z] nats between q and the standard normal prior; None where a flow leaves no closed form."""
        if len(self.layers):
            return None
        mean_RZ, log_std_RZ, _ = self._split(encoded_RE)
        return kl_to_standard_normal(mean_RZ, log_std_RZ)

    def centre(self, encoded_RE: Tensor) -> Tensor:
        """[R, Z] the mean; with a flow, where the Gaussian's mean goes."""
        mean_RZ, _, context_RC = self._split(encoded_RE)
        return self._flow(mean_RZ, context_RC)[0]

    @torch.no_grad()
    def log_density(self, z_RZ: Tensor, encoded_RE: Tensor) -> Tensor:
        """[R] log q of given latents, in nats, one for each row."""
        mean_RZ, log_std_RZ, context_RC = self._split(encoded_RE)
        first_RZ = z_RZ
        for layer in reversed(self.layers):
            assert isinstance(layer, MaskedAutoregressive)
            first_RZ = layer.inverse(first_RZ.flip(1), context_RC)
        log_det_R = self._flow(first_RZ, context_RC)[1]
        return normal_log_prob(first_RZ, mean_RZ, log_std_RZ).sum(-1) - log_det_R
