"""Bounds against known log p(x): exact expectations over a discrete latent, and a linear-Gaussian model.

Shape legend: K samples, R rows, V values of a latent, Z latents, D dimensions.
"""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from data_pipeline.config import BadInput
from evals.metrics import bounds
from evals.metrics.bounds import elbo, importance_weighted
from evals.metrics.importance_weights import effective_sample_size, log_mean_error, log_mean_weight

VALUES, MOST = 4, 5


def expected_bounds(joint_V: Tensor, q_V: Tensor) -> list[float]:
    """E L_K for K = 1.. by enumerating all draws of K latents from q; joint_V is p(x, z) of one x."""
    log_w_V = (joint_V / q_V).log()
    found = []
    for number in range(1, MOST + 1):
        draws_KR = torch.tensor(list(itertools.product(range(VALUES), repeat=number))).T
        chance_R = q_V[draws_KR].prod(0)
        # what the metric says of each combination of draws, one at a time
        values = [importance_weighted([log_w_V[draw][:, None]], protocol={})[0].value for draw in draws_KR.T]
        found.append(-float(chance_R @ torch.tensor(values, dtype=torch.float64)))
    return found


def check_order(joint_V: Tensor, q_V: Tensor) -> None:
    truth = float(joint_V.sum().log())
    found = expected_bounds(joint_V, q_V)
    evidence = float((q_V * (joint_V / q_V).log()).sum())
    assert found[0] == pytest.approx(evidence, abs=1e-12)
    assert all(a < b - 1e-9 for a, b in itertools.pairwise([*found, truth]))


def test_bounds_rise_with_samples_and_stay_below_the_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    joint_V = 0.3 * torch.rand(VALUES, dtype=torch.float64) + 0.01
    q_V = torch.randn(VALUES, dtype=torch.float64).softmax(0)
    check_order(joint_V, q_V)
    mutants: tuple[Callable[[Tensor], Tensor], ...] = (
        lambda log_w_KR: log_w_KR.mean(0),
        lambda log_w_KR: torch.logsumexp(log_w_KR, 0),
    )
    for mutant in mutants:
        monkeypatch.setattr(bounds, "log_mean_weight", mutant)
        with pytest.raises(AssertionError):
            check_order(joint_V, q_V)


class LinearGaussian:
    """p(z) = N(0, I), p(x given z) = N(W z + b, s^2 I), in float64."""

    def __init__(self) -> None:
        self.weight_DZ = torch.randn(5, 2, dtype=torch.float64)
        self.bias_D = torch.randn(5, dtype=torch.float64)
        self.prior = Independent(Normal(torch.zeros(2, dtype=torch.float64), 1.0), 1)
        self.variance = 0.5
        self.marginal = MultivariateNormal(
            self.bias_D, self.weight_DZ @ self.weight_DZ.T + self.variance * torch.eye(5, dtype=torch.float64)
        )

    def log_likelihood(self, x_RD: Tensor, z: Tensor) -> Tensor:
        return Independent(Normal(z @ self.weight_DZ.T + self.bias_D, math.sqrt(self.variance)), 1).log_prob(x_RD)

    def posterior(self, x_RD: Tensor) -> MultivariateNormal:
        precision_ZZ = torch.eye(2, dtype=torch.float64) + self.weight_DZ.T @ self.weight_DZ / self.variance
        covariance_ZZ = torch.linalg.inv(precision_ZZ)
        return MultivariateNormal((x_RD - self.bias_D) @ self.weight_DZ / self.variance @ covariance_ZZ, covariance_ZZ)

    def log_weights(self, x_RD: Tensor, q: MultivariateNormal, samples: int) -> Tensor:
        z_KRZ = q.sample((samples,))
        return self.log_likelihood(x_RD, z_KRZ) + self.prior.log_prob(z_KRZ) - q.log_prob(z_KRZ)


def test_every_weight_is_the_evidence_under_the_true_posterior() -> None:
    model = LinearGaussian()
    x_RD = model.marginal.sample((20,))
    truth_R = model.marginal.log_prob(x_RD)
    for samples in (1, 3, 50):
        log_w_KR = model.log_weights(x_RD, model.posterior(x_RD), samples)
        bound, size = importance_weighted([log_w_KR], protocol={})
        assert bound.value == pytest.approx(-float(truth_R.mean()), abs=1e-10)
        assert size.value == pytest.approx(samples, abs=1e-8)
        assert bound.name == f"negative_iwae_{samples}"
        assert bound.protocol["samples"] == samples


def test_the_gap_to_known_evidence_closes_from_below() -> None:
    model = LinearGaussian()
    x_D = model.marginal.sample((1,))
    truth = float(model.marginal.log_prob(x_D))
    exact = model.posterior(x_D)
    q = MultivariateNormal(exact.mean + 0.7 * exact.scale_tril.sum(-1), 1.5 * exact.covariance_matrix)
    gaps, errors = [], []
    for samples in (1, 10, 1000):
        log_w_KR = model.log_weights(x_D.expand(400, -1), q.expand((400,)), samples)
        bound, _ = importance_weighted(log_w_KR.split(150, dim=1), protocol={})
        assert bound.stderr is not None
        gaps.append(truth + bound.value)
        errors.append(4 * bound.stderr)
    assert abs(gaps[0] - float(kl_divergence(q, exact))) < errors[0]
    assert gaps[0] - errors[0] > gaps[1] + errors[1]
    assert -errors[2] < gaps[2] < errors[2]


def closed_form_parts(model: LinearGaussian, x_RD: Tensor, q: MultivariateNormal) -> tuple[Tensor, Tensor]:
    """E_q log p(x given z) and KL(q, p(z)) without samples."""
    spread = torch.trace(model.weight_DZ @ q.covariance_matrix[0] @ model.weight_DZ.T) / (2 * model.variance)
    identity = torch.eye(2, dtype=torch.float64)
    prior = MultivariateNormal(torch.zeros(2, dtype=torch.float64), identity)
    return model.log_likelihood(x_RD, q.mean) - spread, kl_divergence(q, prior)


def test_the_elbo_misses_the_evidence_by_the_divergence_of_q() -> None:
    model = LinearGaussian()
    x_RD = model.marginal.sample((8,))
    exact = model.posterior(x_RD)
    q = MultivariateNormal(exact.mean + 0.2, 2 * exact.covariance_matrix.expand(8, 2, 2))
    log_likelihood_R, kl_R = closed_form_parts(model, x_RD, q)
    total, reconstruction, divergence = elbo(
        zip(log_likelihood_R.split(3), kl_R.split(3), strict=True), kl="closed form", protocol={"split": "test"}
    )
    missed = float(kl_divergence(q, exact).mean())
    assert total.value == pytest.approx(-float(model.marginal.log_prob(x_RD).mean()) + missed, abs=1e-10)
    assert total.value == pytest.approx(reconstruction.value + divergence.value, abs=1e-12)
    assert divergence.value == pytest.approx(float(kl_R.mean()), abs=1e-12)
    assert total.protocol == {"split": "test", "bound": "ELBO", "kl": "closed form", "beta": 1.0}
    assert total.count == 8


def test_weights_far_from_one_do_not_overflow() -> None:
    log_w_K = torch.tensor([-5000.0, -5000.0 + math.log(3.0), -torch.inf, -5000.0], dtype=torch.float64)
    assert float(log_mean_weight(log_w_K)) == pytest.approx(-5000.0 + math.log(5 / 4), abs=1e-10)
    assert float(effective_sample_size(log_w_K)) == pytest.approx(25 / 11, abs=1e-10)


def test_effective_size_of_equal_weights_and_of_one() -> None:
    assert float(effective_sample_size(torch.full((7,), 3.0).double())) == pytest.approx(7, abs=1e-12)
    assert float(effective_sample_size(torch.tensor([0.0, -800.0]).double())) == pytest.approx(1, abs=1e-12)


def test_the_error_of_a_log_mean_is_calibrated() -> None:
    """Log-normal weights: over 400 estimates the deviation has the size that each says."""
    generator = torch.Generator().manual_seed(1)
    log_w_KT = 0.7 * torch.randn(2000, 400, dtype=torch.float64, generator=generator)
    z_T = (log_mean_weight(log_w_KT) - 0.7**2 / 2) / log_mean_error(log_w_KT)
    assert abs(float(z_T.square().mean()) - 1) < 4 * math.sqrt(2 / 400)


def test_bad_shapes() -> None:
    with pytest.raises(BadInput, match="one K for all batches"):
        importance_weighted([torch.zeros(3, 2), torch.zeros(4, 2)], protocol={})
    with pytest.raises(BadInput, match="must both be one per row"):
        elbo([(torch.zeros(3), torch.zeros(3, 1))], kl="sampled", protocol={})
