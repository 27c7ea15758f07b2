"""VQ-VAE: an autoencoder through a few discrete codes (van den Oord et al. 2017, https://arxiv.org/abs/1711.00937).

The encoder's outputs are P vectors, each replaced by the nearest code (`code_book`); the decoder says the distribution
of the values given the codes. q(codes given x) is certain, so with a prior over codes

    log p(x) >= log p(x given codes(x)) + log p(codes(x))

The prior here is one distribution for each position, learned beside the rest; it moves nothing but itself.

Where codes are moving averages a step has two turns, each with a batch of its own: the code book's statistics move to
those of what the encoder says now, then the autoencoder (with the prior) learns with the codes as they are.

Shape legend: R rows, N rows of codes, D values of a row, P positions, W width of a code, K codes.
"""

import math
from collections.abc import Iterable
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from data_pipeline.batch import VectorBatch
from data_pipeline.vector_data import VectorData
from pretrain.contract import Carry, Loss, Model
from pretrain.distributions.categorical import categorical_log_prob, draw_categorical
from pretrain.models.latent.code_book import CodesConfig, GradientCodes, MovingAverageCodeBook
from pretrain.models.latent.networks import NetworkConfig, compute, flops_of
from pretrain.models.latent.outputs import OutputConfig
from pretrain.models.vectors import VectorModelConfig
from pretrain.optim import OptimizerConfig


class VQVAEConfig(VectorModelConfig):
    """Networks and codes."""

    kind: Literal["vq_vae"]
    row_shape: tuple[int, ...] = Field(min_length=1)
    """Channels, height and width of images; or one number."""
    num_positions: int = Field(gt=0)
    """Codes of a row."""
    num_codes: int = Field(ge=2)
    code_width: int = Field(gt=0)
    codes: CodesConfig = GradientCodes()
    """How they learn."""
    commitment: float = Field(default=0.25, ge=0)
    """The paper's beta."""
    encoder: NetworkConfig
    decoder: NetworkConfig
    output: OutputConfig

    @property
    def players(self) -> tuple[str, ...]:
        return self.codes.players

    @property
    def shape(self) -> tuple[int, ...]:
        return self.row_shape

    @property
    def num_levels(self) -> int | None:
        return self.output.num_levels

    def problem(self, data: VectorData) -> str | None:
        return super().problem(data) or self.output.problem(data)

    def optimizer_problem(self, player: str, optimizer: OptimizerConfig) -> str | None:
        problem = self.codes.optimizer_problem(player, optimizer)
        return problem and f"{problem} (model.codes.kind={self.codes.kind})"

    def build(self) -> "VQVAE":
        return VQVAE(self)


class VQVAE(Model):
    """Encoder, code book, decoder and a prior of the codes."""

    def __init__(self, config: VQVAEConfig) -> None:
        super().__init__()
        self.config, self.players = config, config.players
        width = config.num_positions * config.code_width
        self.encoder = config.encoder.encoder(config.row_shape, width)
        self.code_book = config.codes.build(config.num_codes, config.code_width)
        self.decoder = config.decoder.decoder(width, config.row_shape, config.output.per_value)
        self.prior_logits_PK = nn.Parameter(torch.zeros(config.num_positions, config.num_codes))
        codes = flops_of(self.encoder) + 2.0 * width * config.num_codes
        self._flops = codes + flops_of(self.decoder) / len(self.players)

    def player_parameters(self, player: str) -> Iterable[tuple[str, nn.Parameter]]:
        if player == "autoencoder" and player in self.players:
            return [(name, p) for name, p in self.named_parameters() if not name.startswith("code_book.")]
        return super().player_parameters(player)

    @property
    def bits_per_row(self) -> float:
        """Of the codes, all equally likely."""
        return self.config.num_positions * math.log2(self.config.num_codes)

    def _vectors(self, batch: VectorBatch) -> Tensor:
        """[R, P, W] before they are quantized."""
        vectors_RPW: Tensor = compute(self.encoder, batch.values).unflatten(1, (-1, self.config.code_width))
        return vectors_RPW

    def _reconstruction(self, z_RPW: Tensor, batch: VectorBatch) -> Tensor:
        """[R] log p(x given codes), in nats."""
        return self.config.output.log_prob(compute(self.decoder, z_RPW.flatten(1)), batch.values)

    def _prior(self, codes_NP: Tensor) -> Tensor:
        """[N] log p(codes), in nats."""
        return categorical_log_prob(self.prior_logits_PK.expand(*codes_NP.shape, -1), codes_NP).sum(1)

    def forward(self, batch: VectorBatch, carry: Carry | None, *, player: str, step: int) -> Loss:
        if player == "code_book":
            return self._statistics(batch)
        z_RPW, numbers_RP, codes_R, commitment_R = self.code_book(self._vectors(batch))
        reconstruction, prior = -self._reconstruction(z_RPW, batch).sum(), -self._prior(numbers_RP).sum()
        codes = codes_R.sum() if player == "model" else 0.0
        total = reconstruction + codes + self.config.commitment * commitment_R.sum() + prior
        metrics = {
            "reconstruction_nats": reconstruction.detach(),
            "code_nats": prior.detach(),
            "distance_to_codes": codes_R.detach().sum(),
        }
        return Loss(total=total, count=batch.rows, metrics=metrics)

    def _statistics(self, batch: VectorBatch) -> Loss:
        """The turn of the code book's statistics; nothing else moves."""
        assert isinstance(self.code_book, MovingAverageCodeBook)
        with torch.no_grad():
            x_RPW = self._vectors(batch)
        return Loss(total=self.code_book.statistics_loss(x_RPW), count=batch.rows)

    def log_prob_bound(self, batch: VectorBatch, samples: int) -> Tensor:
        """[R] nats; the same for any number of samples, since codes are certain given x."""
        codes_RP = self.codes(batch)
        return self._reconstruction(self.code_book.vectors(codes_RP), batch) + self._prior(codes_RP)

    def codes(self, batch: VectorBatch) -> Tensor:
        """[R, P] int64."""
        return self.code_book.nearest(self._vectors(batch))

    def encode(self, batch: VectorBatch) -> Tensor:
        """[R, P W] the codes' vectors, one after the other."""
        return self.code_book.vectors(self.codes(batch)).flatten(1)

    def decode(self, latents_NZ: Tensor) -> Tensor:
        """[N, D] the mean given [N, P W] vectors, which need not be codes."""
        return self.config.output.mean(compute(self.decoder, latents_NZ))

    def decode_codes(self, codes_NP: Tensor) -> Tensor:
        """[N, D] the mean given codes by their numbers."""
        return self.decode(self.code_book.vectors(codes_NP).flatten(1))

    @torch.no_grad()
    def sample(self, count: int) -> Tensor:
        """[count, D] of codes from the prior."""
        codes_NP = draw_categorical(self.prior_logits_PK.expand(count, -1, -1))
        return self.config.output.draw(compute(self.decoder, self.code_book.vectors(codes_NP).flatten(1)))

    def flops_per_count(self) -> float:
        """The mean over a step's turns; only the autoencoder's decodes."""
        return self._flops
