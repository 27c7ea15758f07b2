"""WGAN-GP: who learns in which turn, the penalty in closed form, and the distance it estimates.

Shape legend: R rows, D values.
"""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from data_pipeline.batch import VectorBatch
from pretrain.models import WGANConfig
from pretrain.models.adversarial.wgan import WGAN


def configure(**settings: Any) -> WGANConfig:
    sizes = {"num_values": 5, "latent_width": 3, "generator_widths": [8], "critic_widths": [8, 6]}
    return WGANConfig(kind="wgan", **{**sizes, **settings})


def batch_of(values_RD: Tensor) -> VectorBatch:
    rows = len(values_RD)
    return VectorBatch(values_RD, torch.zeros(rows, dtype=torch.int64), torch.arange(rows))


def test_turns() -> None:
    assert configure(critic_steps=3).build().turns(7) == ("critic", "critic", "critic", "generator")


@pytest.mark.parametrize("others_frozen", [True, False])
@pytest.mark.parametrize(("player", "other"), [("critic", "generator"), ("generator", "critic")])
def test_gradient_reaches_exactly_the_player(player: str, other: str, others_frozen: bool) -> None:
    model = configure().build()
    if others_frozen:
        getattr(model, other).requires_grad_(False)
    model(batch_of(torch.rand(6, 5)), None, player=player, step=0).total.backward()
    assert all(p.grad is None for _, p in model.player_parameters(other))
    slopes = {name: p.grad for name, p in model.player_parameters(player)}
    assert all(slope is not None for slope in slopes.values())
    assert all(slope.abs().max() > 0 for name, slope in slopes.items() if name.endswith("weight"))


def test_a_critic_that_is_not_frozen_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pretrain.models.adversarial.wgan.frozen", lambda module, values: module(values))
    with pytest.raises(AssertionError):
        test_gradient_reaches_exactly_the_player("generator", "critic", others_frozen=False)


def check_linear_critic(model: WGAN) -> None:
    """D(x) = w.x + b has the same gradient w everywhere, so it does not matter where the points between fall."""
    rows, weight_1D = 6, model.critic[0].weight
    batch = batch_of(torch.rand(rows, 5, dtype=torch.float64))
    torch.manual_seed(3)
    gap_D = (batch.values - model.sample(rows)).sum(0)
    torch.manual_seed(3)
    loss = model(batch, None, player="critic", step=0)
    norm, distance = weight_1D.norm(), (weight_1D @ gap_D).sum()
    torch.testing.assert_close(loss.total, 7.0 * rows * (norm - 1) ** 2 - distance, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(loss.metrics["gradient_norm"], rows * norm.detach(), rtol=1e-12, atol=0)
    torch.testing.assert_close(loss.metrics["wasserstein"], distance.detach(), rtol=1e-12, atol=1e-12)
    (slope,) = torch.autograd.grad(loss.total, weight_1D)
    wanted = 14.0 * rows * (norm - 1) * weight_1D / norm - gap_D
    torch.testing.assert_close(slope, wanted.detach(), rtol=1e-12, atol=1e-12)


def test_penalty_of_a_linear_critic(randomised: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = randomised(configure(critic_widths=[], penalty=7.0).build())
    check_linear_critic(model)
    true_norm = model._gradient_norm
    monkeypatch.setattr(model, "_gradient_norm", lambda real, fake: true_norm(real, fake).detach())
    with pytest.raises(AssertionError):
        check_linear_critic(model)


@pytest.mark.parametrize("player", ["critic", "generator"])
def test_gradients_equal_finite_differences(player: str, randomised: Any) -> None:
    """Through the second derivative that the penalty needs."""
    model, batch = randomised(configure().build()), batch_of(torch.rand(4, 5, dtype=torch.float64))
    names = [name for name, _ in model.player_parameters(player)]

    def total(*weights: Tensor) -> Tensor:
        torch.manual_seed(3)
        replaced = dict(zip(names, weights, strict=True))
        return functional_call(model, replaced, (batch, None), {"player": player, "step": 0}).total

    weights = tuple(p.detach().clone().requires_grad_() for _, p in model.player_parameters(player))
    assert torch.autograd.gradcheck(total, weights, eps=1e-7, atol=1e-5)


def test_trained_critic_estimates_the_distance() -> None:
    """Three points against one: W1 is their mean distance; slopes may exceed 1 by distance / (2 penalty)."""
    torch.manual_seed(0)
    model = configure(num_values=2, generator_widths=[], critic_widths=[32, 32], penalty=50.0).build()
    with torch.no_grad():
        model.generator[0].weight.zero_()
        model.generator[0].bias.zero_()  # so that every sample is (1/2, 1/2)
    points = torch.tensor([[-1.1, -0.7], [2.1, 1.3], [-0.3, 2.3]])
    batch, exact = batch_of(points.repeat(20, 1)), float((points - 0.5).norm(dim=-1).mean())
    optimizer = torch.optim.Adam(model.critic.parameters(), lr=1e-2, betas=(0.5, 0.9))
    estimates = []
    for step in range(300):
        loss = model(batch, None, player="critic", step=step)
        optimizer.zero_grad()
        (loss.total / loss.count).backward()
        optimizer.step()
        estimates.append(loss.metrics["wasserstein"].item() / loss.count)
    assert sum(estimates[-50:]) / 50 == pytest.approx(exact, rel=0.05)


def test_samples() -> None:
    model = configure().build()
    torch.manual_seed(1)
    first = model.sample(7)
    assert first.shape == (7, 5)
    assert not first.requires_grad
    assert bool(((first > 0) & (first < 1)).all())
    torch.manual_seed(1)
    assert torch.equal(model.sample(7), first)
    assert not torch.equal(model.sample(7), first)


def test_low_precision_weights_read_float32_data() -> None:
    model = configure().build().to(torch.bfloat16)
    for player in model.players:
        loss = model(batch_of(torch.rand(6, 5)), None, player=player, step=0)
        assert loss.total.dtype == torch.float32
        assert all(p.grad is None for p in model.parameters())
        loss.total.backward()
        assert all(p.grad.isfinite().all() for _, p in model.player_parameters(player))
        model.zero_grad()


def test_scoring_without_gradients_gives_the_same_loss() -> None:
    """The penalty needs a slope even where nothing is trained."""
    model, batch = configure().build(), batch_of(torch.rand(6, 5))
    torch.manual_seed(2)
    trained = model(batch, None, player="critic", step=0)
    torch.manual_seed(2)
    with torch.no_grad():
        scored = model(batch, None, player="critic", step=0)
    torch.testing.assert_close(scored.total, trained.total.detach())


class HalfSquare(nn.Module):
    """x^2 / 2: its slope at x is x."""

    def forward(self, x_RD: torch.Tensor) -> torch.Tensor:
        return 0.5 * x_RD.square()


def test_every_row_has_its_own_point_between_data_and_sample() -> None:
    """With data at 1 and samples at 0 the slope of x^2 / 2 is the row's share of the data, uniform on [0, 1]."""
    model = WGANConfig(kind="wgan", num_values=1, latent_width=2, generator_widths=(3,), critic_widths=(3,)).build()
    model.critic = HalfSquare()  # type: ignore[assignment]
    share_R = model._gradient_norm(torch.ones(4096, 1), torch.zeros(4096, 1)).detach()
    assert share_R.unique().numel() > 4000
    assert float(share_R.mean()) == pytest.approx(0.5, abs=4 / (12 * 4096) ** 0.5)
    assert float(share_R.var()) == pytest.approx(1 / 12, rel=0.1)
