"""Lower bounds of log p(x) that a latent-variable model climbs.

ELBO (Kingma & Welling 2014), with beta (Higgins et al. 2017, https://openreview.net/forum?id=Sy2fzU9gl) and free bits
(Kingma et al. 2016, https://arxiv.org/abs/1606.04934, equation 16: each latent of a micro-batch may cost so much for
nothing):

    E_q log p(x given z) - beta sum_j max(free, mean over rows of KL_j)

IWAE (Burda et al. 2016, https://arxiv.org/abs/1509.00519, equation 8): log 1/K sum_k p(x, z_k) / q(z_k given x).

Shape legend: R rows, Z latents, K samples of each row.
"""

import math
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from data_pipeline.config import Config


class ELBOConfig(Config):
    """One sample, with the KL divergence in closed form where there is one."""

    kind: Literal["elbo"]
    beta: float = Field(default=1.0, ge=0)
    free_bits: float = Field(default=0.0, ge=0)
    """In nats, of each latent; of all of them together where the posterior has a flow."""


class IWAEConfig(Config):
    """The importance weighted bound."""

    kind: Literal["iwae"]
    samples: int = Field(ge=1)


BoundConfig = Annotated[ELBOConfig | IWAEConfig, Field(discriminator="kind")]


def weighted_kl(kl_RZ: Tensor, *, beta: float, free_bits: float) -> Tensor:
    """[] summed over rows: what the objective pays for latents that cost `kl_RZ` nats.

    Without free bits there is no least price: one that was drawn may be negative.
    """
    if free_bits == 0:
        return beta * kl_RZ.sum()
    return beta * (len(kl_RZ) * kl_RZ.mean(0).clamp(min=free_bits)).sum()


def importance_weighted(log_w_KR: Tensor) -> Tensor:
    """[K, R] -> [R] nats."""
    return log_w_KR.logsumexp(0) - math.log(len(log_w_KR))
