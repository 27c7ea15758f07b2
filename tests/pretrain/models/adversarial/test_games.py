"""The games on spaces where their values are known exactly: optimal critics, divergences, distances, slopes.

Shape legend: S states of a finite space, R rows, D values.
"""

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from scipy.stats import wasserstein_distance
from torch import Tensor, nn

from pretrain.models.adversarial import games
from pretrain.models.adversarial.games import (
    ClippedWassersteinGame,
    CrossEntropyGame,
    PenalizedWassersteinGame,
    gradient_norm,
)

STATES, TOTAL = 6, 120


def counts() -> Tensor:
    """[S] how many of TOTAL rows are in each state, none of them empty."""
    drawn_R = torch.multinomial(torch.rand(STATES) + 0.1, TOTAL - STATES, replacement=True)
    return 1 + drawn_R.bincount(minlength=STATES)


def rows_of(counts_S: Tensor) -> Tensor:
    """[TOTAL, S] one-hot rows."""
    return torch.eye(STATES, dtype=torch.float64).repeat_interleave(counts_S, dim=0)


def best_critic(game: CrossEntropyGame, real_S: Tensor, fake_S: Tensor) -> tuple[nn.Linear, float]:
    """A critic with a logit of its own for each state, and what it costs a row, at the minimum (Newton's method)."""
    critic = nn.Linear(STATES, 1, bias=False).double()
    real_RD, fake_RD = rows_of(real_S), rows_of(fake_S)

    def total(weight_1S: Tensor) -> Tensor:
        return game.critic_loss(lambda x_RD: x_RD @ weight_1S.T, real_RD, fake_RD)[0]

    weight_1S = torch.zeros(1, STATES, dtype=torch.float64)
    for _ in range(30):
        (slope_1S,) = torch.autograd.grad(total(weight_1S.requires_grad_()), weight_1S)
        hessian_SS = torch.autograd.functional.hessian(total, weight_1S).view(STATES, STATES)
        weight_1S = (weight_1S - torch.linalg.solve(hessian_SS, slope_1S[0])).detach()
    with torch.no_grad():
        critic.weight.copy_(weight_1S)
    return critic, float(total(weight_1S)) / TOTAL


def jensen_shannon(p_S: Tensor, q_S: Tensor) -> float:
    m_S = (p_S + q_S) / 2
    return float(((p_S * (p_S / m_S).log()).sum() + (q_S * (q_S / m_S).log()).sum()) / 2)


def check_optimum(game: CrossEntropyGame) -> None:
    real_S, fake_S = counts(), counts()
    p_S, q_S = real_S.double() / TOTAL, fake_S.double() / TOTAL
    critic, cost = best_critic(game, real_S, fake_S)
    torch.testing.assert_close(critic.weight[0].sigmoid().detach(), p_S / (p_S + q_S), rtol=0, atol=1e-9)
    assert cost == pytest.approx(math.log(4) - 2 * jensen_shannon(p_S, q_S), abs=1e-9)
    _, metrics = game.critic_loss(critic, rows_of(real_S), rows_of(fake_S))
    assert float(metrics["jensen_shannon"]) / TOTAL == pytest.approx(jensen_shannon(p_S, q_S), abs=1e-9)


def test_the_best_critic_is_p_over_p_plus_q_and_its_value_the_divergence(monkeypatch: pytest.MonkeyPatch) -> None:
    game = CrossEntropyGame(kind="cross_entropy")
    check_optimum(game)
    true = games.F.softplus
    monkeypatch.setattr(games.F, "softplus", lambda x: true(x) + 0.01 * x)  # label smoothing that nobody asked for
    with pytest.raises(AssertionError):
        check_optimum(game)


def test_a_worse_critic_says_less_than_the_divergence() -> None:
    real_S, fake_S = counts(), counts()
    exact = jensen_shannon(real_S.double() / TOTAL, fake_S.double() / TOTAL)
    for _ in range(20):
        critic = nn.Linear(STATES, 1).double()
        game = CrossEntropyGame(kind="cross_entropy")
        _, metrics = game.critic_loss(critic, rows_of(real_S), rows_of(fake_S))
        assert float(metrics["jensen_shannon"]) / TOTAL < exact


@pytest.mark.parametrize("score", [-3.0, 0.0, 2.0])
def test_what_the_generator_descends(score: float) -> None:
    share = 1 / (1 + math.exp(-score))
    scores_R1 = torch.full((4, 1), score, dtype=torch.float64)
    minimax = CrossEntropyGame(kind="cross_entropy", generator_descends="minimax").generator_loss(scores_R1)
    other = CrossEntropyGame(kind="cross_entropy", generator_descends="non_saturating").generator_loss(scores_R1)
    assert float(minimax) == pytest.approx(4 * math.log(1 - share), abs=1e-12)
    assert float(other) == pytest.approx(-4 * math.log(share), abs=1e-12)


def linear_programme(real_N: np.ndarray, fake_N: np.ndarray, p_N: np.ndarray, q_N: np.ndarray) -> tuple[float, float]:
    """W1 of two finite distributions on a line: by the cheapest plan, and by the best 1-Lipschitz function."""
    size = len(real_N)
    cost_NN = np.abs(real_N[:, None] - fake_N[None, :])
    sums = np.concatenate([np.kron(np.eye(size), np.ones(size)), np.kron(np.ones(size), np.eye(size))])
    primal = linprog(cost_NN.ravel(), A_eq=sums, b_eq=np.concatenate([p_N, q_N]))
    dual = linprog(-np.concatenate([p_N, q_N]), A_ub=sums.T, b_ub=cost_NN.ravel(), bounds=(None, None))
    return float(primal.fun), -float(dual.fun)


def trained_critic(penalties: list[float], real_RD: Tensor, fake_RD: Tensor) -> tuple[nn.Module, float]:
    """A critic after 300 turns with each penalty, and the distance that it says over the last fifty."""
    critic = nn.Sequential(nn.Linear(1, 32), nn.LeakyReLU(0.2), nn.Linear(32, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1))
    optimizer = torch.optim.Adam(critic.parameters(), lr=5e-3, betas=(0.5, 0.9))
    estimates = []
    for penalty in penalties:
        game = PenalizedWassersteinGame(kind="wasserstein_penalty", penalty=penalty)
        for _ in range(300):
            total, metrics = game.critic_loss(critic, real_RD, fake_RD[torch.randperm(len(fake_RD))])
            optimizer.zero_grad()
            (total / len(real_RD)).backward()
            optimizer.step()
            estimates.append(float(metrics["wasserstein"]) / len(real_RD))
    return critic, sum(estimates[-50:]) / 50


def test_a_trained_critic_says_the_exact_distance_and_has_slopes_of_one() -> None:
    """Two finite distributions on a line: cheapest plan = best potential = area between distribution functions.

    Data lie on both sides of the samples, so that the best potential is no straight line.
    """
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    fake_N = rng.uniform(-0.2, 0.2, STATES)
    real_N = np.concatenate([rng.uniform(-3, -1, STATES // 2), rng.uniform(1, 3, STATES // 2)])
    real_count_N, fake_count_N = counts(), counts()
    p_N, q_N = real_count_N.double().numpy() / TOTAL, fake_count_N.double().numpy() / TOTAL
    primal, dual = linear_programme(real_N, fake_N, p_N, q_N)
    exact = wasserstein_distance(real_N, fake_N, p_N, q_N)
    assert primal == pytest.approx(exact, abs=1e-9)
    assert dual == pytest.approx(exact, abs=1e-9)
    real_RD = torch.from_numpy(real_N).float()[:, None].repeat_interleave(real_count_N, dim=0)
    fake_RD = torch.from_numpy(fake_N).float()[:, None].repeat_interleave(fake_count_N, dim=0)
    critic, estimate = trained_critic([0.5, 50.0, 50.0], real_RD, fake_RD)  # a slope must first be free to turn
    share = share_near_one(critic, real_RD, fake_RD)
    print(f"exact {exact:.4f}, estimated {estimate:.4f}, slopes near one {share:.3f}")
    assert estimate == pytest.approx(exact, rel=0.05)
    assert share > 0.8
    loose, estimate = trained_critic([0.1], real_RD, fake_RD)
    assert abs(estimate - exact) > 0.05 * exact, "without a constraint on its slope a critic says anything"
    assert share_near_one(loose, real_RD, fake_RD) < 0.5


def share_near_one(critic: nn.Module, real_RD: Tensor, fake_RD: Tensor) -> float:
    """Of a histogram of slopes between data and samples: what falls in the bin from 0.9 to 1.1."""
    norm_R = gradient_norm(critic, real_RD.repeat(20, 1), fake_RD.repeat(20, 1)[torch.randperm(20 * TOTAL)]).detach()
    bins = torch.histogram(norm_R, bins=torch.tensor([0.0, 0.9, 1.1, 100.0])).hist
    return float(bins[1] / bins.sum())


def check_linear_critic(game: PenalizedWassersteinGame) -> None:
    """D(x) = w.x + b has the same gradient w everywhere, so it does not matter where the points between fall."""
    critic, rows = nn.Linear(5, 1).double(), 6
    real_RD, fake_RD = torch.rand(rows, 5, dtype=torch.float64), torch.rand(rows, 5, dtype=torch.float64)
    total, metrics = game.critic_loss(critic, real_RD, fake_RD)
    gap_D = (real_RD - fake_RD).sum(0)
    norm, distance = critic.weight.norm(), (critic.weight @ gap_D).sum()
    torch.testing.assert_close(total, 7.0 * rows * (norm - 1) ** 2 - distance, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(metrics["gradient_norm"], rows * norm.detach(), rtol=1e-12, atol=0)
    torch.testing.assert_close(metrics["wasserstein"], distance.detach(), rtol=1e-12, atol=1e-12)
    (slope,) = torch.autograd.grad(total, critic.weight)
    wanted = 14.0 * rows * (norm - 1) * critic.weight / norm - gap_D
    torch.testing.assert_close(slope, wanted.detach(), rtol=1e-12, atol=1e-12)


def test_penalty_of_a_linear_critic(monkeypatch: pytest.MonkeyPatch) -> None:
    game = PenalizedWassersteinGame(kind="wasserstein_penalty", penalty=7.0)
    check_linear_critic(game)
    monkeypatch.setattr(games, "gradient_norm", lambda *given: gradient_norm(*given).detach())
    with pytest.raises(AssertionError):
        check_linear_critic(game)


def test_clipped_critics_descend_the_gap_alone() -> None:
    critic = nn.Linear(5, 1).double()
    real_RD, fake_RD = torch.rand(6, 5, dtype=torch.float64), torch.rand(6, 5, dtype=torch.float64)
    total, metrics = ClippedWassersteinGame(kind="wasserstein_clipping").critic_loss(critic, real_RD, fake_RD)
    gap = (critic.weight @ (real_RD - fake_RD).sum(0)).sum()
    torch.testing.assert_close(total, -gap, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(metrics["wasserstein_up_to_scale"], gap.detach(), rtol=1e-12, atol=1e-12)


class HalfSquare(nn.Module):
    """x^2 / 2: its slope at x is x."""

    def forward(self, x_RD: Tensor) -> Tensor:
        return 0.5 * x_RD.square()


def test_every_row_has_its_own_point_between_data_and_sample() -> None:
    """With data at 1 and samples at 0 the slope of x^2 / 2 is the row's share of the data, uniform on [0, 1]."""
    torch.manual_seed(0)
    share_R = gradient_norm(HalfSquare(), torch.ones(4096, 1), torch.zeros(4096, 1)).detach()
    assert share_R.unique().numel() > 4000
    assert float(share_R.mean()) == pytest.approx(0.5, abs=4 / (12 * 4096) ** 0.5)
    assert float(share_R.var()) == pytest.approx(1 / 12, rel=0.1)


@pytest.mark.parametrize("game", [ClippedWassersteinGame, PenalizedWassersteinGame])
def test_generators_of_distances_raise_the_score(game: Any) -> None:
    kind = game.model_fields["kind"].annotation.__args__[0]
    assert float(game(kind=kind).generator_loss(torch.tensor([[1.0], [2.5]]))) == -3.5


def test_the_point_lies_on_the_line_between_data_and_sample() -> None:
    """One share for all of a row's values, which is what a point has with data at 1 and samples at 0."""
    torch.manual_seed(0)
    seen: list[Tensor] = []

    class Watched(nn.Module):
        def forward(self, x_RD: Tensor) -> Tensor:
            seen.append(x_RD.detach())
            return 0.5 * x_RD.square().sum(-1, keepdim=True)

    norm_R = gradient_norm(Watched(), torch.ones(4096, 3), torch.zeros(4096, 3)).detach()
    assert torch.equal(seen[0], seen[0][:, :1].expand(-1, 3))
    assert float(norm_R.mean()) == pytest.approx(3**0.5 / 2, abs=4 * 3**0.5 / (12 * 4096) ** 0.5)
