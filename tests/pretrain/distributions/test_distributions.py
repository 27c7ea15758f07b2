"""Every distribution sums (or integrates) to one, and draws what it says; in float64 on random parameters."""

import math

import pytest
import torch
from torch import Tensor

from data_pipeline.config import BadInput
from pretrain.distributions import logistic
from pretrain.distributions.bernoulli import bernoulli_log_prob
from pretrain.distributions.categorical import categorical_log_prob, draw_categorical, level_of, value_of
from pretrain.distributions.gaussian import (
    draw_normal,
    kl_to_standard_normal,
    normal_log_prob,
    standard_normal_log_prob,
)
from pretrain.distributions.logistic import draw_logistic_mixture, logistic_log_prob, logistic_mixture_log_prob

MANY = 200_000


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def draw(*shape: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(*shape, dtype=torch.float64)


def fits(counts_K: Tensor, p_K: Tensor) -> bool:
    """Pearson's chi-square below its mean and four standard deviations, over the cells of which five are expected."""
    total = counts_K.sum()
    keep = p_K * total >= 5
    expected_K = (p_K * total)[keep]
    statistic = ((counts_K[keep] - expected_K).square() / expected_K).sum()
    freedom = int(keep.sum()) - 1
    return float(statistic) < freedom + 4 * math.sqrt(2 * freedom)


def test_bernoulli_sums_to_one() -> None:
    values_XD = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 5)
    log_prob_X = bernoulli_log_prob(draw(5, scale=3).expand(32, 5), values_XD)
    assert float(log_prob_X.exp().sum()) == pytest.approx(1, abs=1e-12)


def test_categorical_is_its_softmax_and_draws_it() -> None:
    logits_K = draw(7, scale=2)
    log_prob_K = categorical_log_prob(logits_K.expand(7, 7), torch.arange(7))
    assert torch.allclose(log_prob_K, logits_K.log_softmax(-1), atol=1e-12)
    counts_K = torch.bincount(draw_categorical(logits_K.expand(MANY, 7)), minlength=7).double()
    assert fits(counts_K, logits_K.softmax(-1))
    assert not fits(counts_K, draw(7).softmax(-1))


def test_levels_there_and_back() -> None:
    places = torch.arange(256)
    assert torch.equal(level_of(value_of(places, 256), 256), places)
    for values in (torch.tensor([0.5, 1.01]), torch.tensor([-0.2]), torch.tensor([255.0]), torch.tensor([0, math.nan])):
        with pytest.raises(BadInput, match=r"must lie from 0 to 1, where the 256 levels are; scale them"):
            level_of(values, 256)


def test_gaussians_by_quadrature() -> None:
    x = torch.linspace(-30, 30, 600_001, dtype=torch.float64)
    step = float(x[1] - x[0])
    mean, log_std = draw(1), draw(1, scale=0.5)
    p = normal_log_prob(x, mean, log_std).exp()
    assert float(p.sum() * step) == pytest.approx(1, abs=1e-9)
    ratio = normal_log_prob(x, mean, log_std) - standard_normal_log_prob(x[:, None])
    assert float((p * ratio).sum() * step) == pytest.approx(float(kl_to_standard_normal(mean, log_std)), abs=1e-9)
    drawn = draw_normal(mean.expand(MANY), log_std.expand(MANY))
    error = 4 * float(log_std.exp()) / math.sqrt(MANY)
    assert float(drawn.mean() - mean) == pytest.approx(0, abs=error)
    assert float(drawn.std() - log_std.exp()) == pytest.approx(0, abs=error)


def no_open_edges(values: Tensor, weights: Tensor, means: Tensor, log_scales: Tensor, num_levels: int) -> Tensor:
    """The mutant: every level has a bin of finite width, as those within a grid that goes on by one at each end."""
    inner = (num_levels - 1) / (num_levels + 1)
    moved = (means - 0.5) * inner + 0.5
    return logistic_mixture_log_prob(
        (values - 0.5) * inner + 0.5, weights, moved, log_scales + math.log(inner), num_levels + 2
    )


def components_added_up(values: Tensor, weights: Tensor, means: Tensor, log_scales: Tensor, num_levels: int) -> Tensor:
    """The mutant: a sum of log probabilities in place of the log of a sum."""
    return (weights.log_softmax(-1) + logistic_log_prob(values, means, log_scales, num_levels)).sum(-1)


def no_weights(values: Tensor, weights: Tensor, means: Tensor, log_scales: Tensor, num_levels: int) -> Tensor:
    """The mutant: every component counts whole."""
    return logistic_log_prob(values, means, log_scales, num_levels).logsumexp(-1)


@pytest.mark.parametrize("num_levels", [2, 17, 256, 65_536])
@pytest.mark.parametrize("scale", [-9.0, -3.0, 2.0])
def test_a_mixture_of_logistics_sums_to_one_with_both_edges(num_levels: int, scale: float) -> None:
    """Narrow components and wide ones, within the levels and outside of them."""
    weights_M, means_M = draw(3), torch.tensor([0.2, 1.3, -0.4], dtype=torch.float64)
    values_L = torch.arange(num_levels, dtype=torch.float64) / (num_levels - 1)
    wide = [one.expand(num_levels, 3) for one in (weights_M, means_M, torch.full((3,), scale).double())]
    log_prob_L = logistic_mixture_log_prob(values_L, *wide, num_levels)
    assert float(log_prob_L.exp().sum()) == pytest.approx(1, abs=1e-12)
    assert log_prob_L.isfinite().all()
    for mutant in (no_open_edges, components_added_up, no_weights):
        assert abs(float(mutant(values_L, *wide, num_levels).exp().sum()) - 1) > 1e-3, mutant.__name__


def cost_of_a_constant(num_levels: int, log_scale: float) -> tuple[float, float]:
    """Nats of the middle level under one component at it, and the gradient of its log scale."""
    middle = torch.tensor((num_levels // 2) / (num_levels - 1), dtype=torch.float64)
    scale_1 = torch.full((1,), log_scale, dtype=torch.float64, requires_grad=True)
    nats = -logistic_mixture_log_prob(middle, torch.zeros(1), middle[None], scale_1, num_levels)
    nats.backward()
    return float(nats), float(scale_1.grad)


@pytest.mark.parametrize("num_levels", [16, 256, 65_536])
def test_a_constant_costs_nearly_nothing_at_any_number_of_levels(
    num_levels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scales may fall below a bin, and on the way down their gradient lives."""
    assert cost_of_a_constant(num_levels, -30)[0] < 1e-3
    way = torch.linspace(-2, logistic.lowest_log_scale(num_levels) + 1, 20).tolist()
    assert all(cost_of_a_constant(num_levels, log_scale)[1] > 1e-3 for log_scale in way)
    monkeypatch.setattr(logistic, "lowest_log_scale", lambda _: -7.0)
    if num_levels == 65_536:
        assert cost_of_a_constant(num_levels, -30)[0] > 5, "one floor for all: 60 bins wide"
        assert cost_of_a_constant(num_levels, -8)[1] == 0


def test_far_tails_are_right() -> None:
    """A level a thousand scales from the mean: -1000 nats and no infinity; the gradient is that of the tail."""
    mean = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    zero, log_scale = torch.zeros(1, dtype=torch.float64), torch.full((1,), -6.0, dtype=torch.float64)
    far = torch.tensor(0.5, dtype=torch.float64)
    found = logistic_mixture_log_prob(far, zero, mean, log_scale, 256)
    inverse, half = math.exp(6.0), 0.5 / 255
    wanted = -(0.5 - half) * inverse + math.log(-math.expm1(-2 * half * inverse))
    assert found.item() == pytest.approx(wanted, rel=1e-12)
    found.backward()
    assert float(mean.grad) == pytest.approx(inverse, rel=1e-6)


def test_a_mixture_of_logistics_draws_what_it_says() -> None:
    parameters = draw(3), torch.rand(3, dtype=torch.float64), draw(3, scale=0.3) - 2
    wide = [one.expand(MANY, 3) for one in parameters]
    drawn = draw_logistic_mixture(*wide, 17)
    counts_L = torch.bincount(level_of(drawn, 17), minlength=17).double()
    values_L = torch.arange(17, dtype=torch.float64) / 16
    p_L = logistic_mixture_log_prob(values_L, *[one.expand(17, 3) for one in parameters], 17).exp()
    assert fits(counts_L, p_L)
    shifted = logistic_mixture_log_prob(values_L, parameters[0], parameters[1] + 0.02, parameters[2], 17).exp()
    assert not fits(counts_L, shifted)
