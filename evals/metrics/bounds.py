"""Bounds on log p(x) of latent-variable models.

ELBO (Kingma & Welling 2014): E_q log p(x given z) - KL(q(z given x), p(z)). Importance weighted bound (Burda et al.
2016, https://arxiv.org/abs/1509.00519, equation 8), with w = p(x, z) / q(z given x):

    L_K = E log 1/K sum_k w_k,    L_1 = ELBO,    L_K <= L_K+1 <= log p(x)

Metrics are the negatives, in nats, so that lower is better and each is above the true -log p(x) in expectation.

Shape legend: R rows of a batch, K samples of a row's latents.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from data_pipeline.config import BadInput
from evals.metric import Metric
from evals.metrics.average import average
from evals.metrics.batches import in_blocks
from evals.metrics.importance_weights import effective_sample_size, log_mean_weight

BLOCK = 64
"""Rows whose weights are summed at once, however they came."""


def elbo(
    parts: Iterable[tuple[Tensor, Tensor]], *, kl: Literal["closed form", "sampled"], protocol: Mapping[str, Any]
) -> tuple[Metric, Metric, Metric]:
    """`negative_elbo` and its two parts, `reconstruction_nats` and `kl_nats`.

    `parts` are batches of (E_q log p(x given z) [R], KL [R]), without any beta or free bits that training may use; `kl`
    says how the second was had.
    """
    pairs = [(log_likelihood_R.detach(), kl_R.detach()) for log_likelihood_R, kl_R in parts]
    for log_likelihood_R, kl_R in pairs:
        if log_likelihood_R.shape != kl_R.shape:
            raise BadInput(f"shapes {tuple(log_likelihood_R.shape)} and {tuple(kl_R.shape)}: must both be one per row")
    known = {**protocol, "bound": "ELBO", "kl": kl, "beta": 1.0}

    def metric(name: str, values: Iterable[Tensor]) -> Metric:
        return average(name, values, unit="nats/example", better="lower", protocol=known)

    return (
        metric("negative_elbo", (kl_R.double() - log_likelihood_R.double() for log_likelihood_R, kl_R in pairs)),
        metric("reconstruction_nats", (-log_likelihood_R for log_likelihood_R, _ in pairs)),
        metric("kl_nats", (kl_R for _, kl_R in pairs)),
    )


def importance_weighted(log_weights: Iterable[Tensor], *, protocol: Mapping[str, Any]) -> tuple[Metric, Metric]:
    """`negative_iwae_K`, and the mean `effective_sample_size` of its weights.

    `log_weights` are batches of log w [K, R], with the same K; the K samples of a row may be drawn in pieces and joined
    (`torch.cat` along K). Also for weights of annealed chains, K for each row (Wu et al. 2017).
    """
    bounds, sizes = [], []
    num_samples = 0
    for log_w_RK in in_blocks(_by_row(log_weights), BLOCK):
        num_samples = log_w_RK.shape[1]
        bounds.append(-log_mean_weight(log_w_RK.T))
        sizes.append(effective_sample_size(log_w_RK.T))
    known = {**protocol, "bound": "importance weighted", "samples": num_samples}
    name = f"negative_iwae_{num_samples}"
    return (
        average(name, bounds, unit="nats/example", better="lower", protocol=known),
        average("effective_sample_size", sizes, unit="samples", better="higher", protocol=known),
    )


def _by_row(log_weights: Iterable[Tensor]) -> Iterator[Tensor]:
    """[R, K] float64 of each batch; BadInput where these are not [K, R] with one K."""
    num_samples = 0
    for log_w_KR in log_weights:
        if log_w_KR.ndim != 2 or len(log_w_KR) != (num_samples or len(log_w_KR)) or len(log_w_KR) == 0:
            raise BadInput(f"log-weights of shape {tuple(log_w_KR.shape)}: must be [K, R], with one K for all batches")
        num_samples = len(log_w_KR)
        yield log_w_KR.detach().to("cpu", torch.float64).T
