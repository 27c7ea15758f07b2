"""RBMs small enough to enumerate: 5 visible and 4 hidden units.

Shape legend: R rows, D visible units, H hidden units, S = 2^D states.
"""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.nn import functional as F

from data_pipeline.batch import VectorBatch
from data_pipeline.config import BadInput
from pretrain.models import RBMConfig
from pretrain.models.energy import rbm
from pretrain.models.energy.rbm import RBM

VISIBLE, HIDDEN = 5, 4


def configure(**settings: Any) -> RBMConfig:
    return RBMConfig(kind="rbm", **{"num_visible": VISIBLE, "num_hidden": HIDDEN, **settings})


def batch_of(values_RD: Tensor) -> VectorBatch:
    rows = len(values_RD)
    return VectorBatch(values_RD, torch.zeros(rows, dtype=torch.int64), torch.arange(rows))


def all_binary(width: int) -> Tensor:
    return torch.cartesian_prod(*[torch.arange(2.0, dtype=torch.float64)] * width)


def energy(model: RBM, v_D: Tensor, h_H: Tensor) -> Tensor:
    return -(model.visible_bias_D @ v_D) - model.hidden_bias_H @ h_H - v_D @ model.weight_DH @ h_H


def exact_log_prob(model: RBM) -> Tensor:
    """[S] log p of every state, from energies alone."""
    rows = [
        torch.logsumexp(torch.stack([-energy(model, v_D, h_H) for h_H in all_binary(HIDDEN)]), 0)
        for v_D in all_binary(VISIBLE)
    ]
    return torch.stack(rows).log_softmax(0)


def test_free_energy_sums_over_hidden_units(randomised: Any) -> None:
    model = randomised(configure().build())
    for v_D, free in zip(all_binary(VISIBLE), model.free_energy(all_binary(VISIBLE)), strict=True):
        summed = torch.logsumexp(torch.stack([-energy(model, v_D, h_H) for h_H in all_binary(HIDDEN)]), 0)
        torch.testing.assert_close(free, -summed, rtol=0, atol=1e-12)


def test_unnormalized_log_prob_lacks_only_a_constant(randomised: Any) -> None:
    model = randomised(configure().build())
    constant = exact_log_prob(model) - model.unnormalized_log_prob(batch_of(all_binary(VISIBLE)))
    torch.testing.assert_close(constant, constant[0].expand(len(constant)), rtol=0, atol=1e-12)


def gibbs_kernel(model: RBM, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """[S, S] exact p(next v given v) of the model's own Gibbs step: its coin flips are answered in every way."""
    states_SD = all_binary(VISIBLE)
    kernel_SS = torch.zeros(len(states_SD), len(states_SD), dtype=torch.float64)
    for h_H in all_binary(HIDDEN):
        asked: list[Tensor] = []

        def answer(probability: Tensor, h_H: Tensor = h_H, asked: list[Tensor] = asked) -> Tensor:
            asked.append(probability)
            return h_H.expand_as(probability) if len(asked) == 1 else torch.zeros_like(probability)

        with monkeypatch.context() as patch:
            patch.setattr(rbm.torch, "bernoulli", answer)
            model.gibbs(states_SD, 1)
        hidden_SH, visible_SD = asked
        chosen_S = torch.where(h_H == 1, hidden_SH, 1 - hidden_SH).prod(-1)
        kernel_SS += chosen_S[:, None] * torch.where(
            states_SD[None] == 1, visible_SD[:, None], 1 - visible_SD[:, None]
        ).prod(-1)
    return kernel_SS.detach()


def check_invariance(model: RBM, monkeypatch: pytest.MonkeyPatch) -> None:
    p_S = exact_log_prob(model).exp().detach()
    kernel_SS = gibbs_kernel(model, monkeypatch)
    torch.testing.assert_close(kernel_SS.sum(-1), torch.ones_like(p_S), rtol=0, atol=1e-12)
    torch.testing.assert_close(p_S @ kernel_SS, p_S, rtol=0, atol=1e-12)


def forgets_a_bias(model: RBM) -> Callable[[Tensor], Tensor]:
    return lambda h_RH: h_RH @ model.weight_DH.T


def turns_a_sign(model: RBM) -> Callable[[Tensor], Tensor]:
    return lambda h_RH: model.visible_bias_D - h_RH @ model.weight_DH.T


def test_gibbs_leaves_the_distribution_invariant(randomised: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = randomised(configure().build())
    check_invariance(model, monkeypatch)
    for mutant in (forgets_a_bias, turns_a_sign):
        with monkeypatch.context() as patch:
            patch.setattr(model, "_visible_logits", mutant(model))
            with pytest.raises(AssertionError):
                check_invariance(model, monkeypatch)


def expected_gradients(model: RBM, data_RD: Tensor, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Over chains that have reached p(v): the model's own loss with every state as the chain, weighted by p."""
    monkeypatch.setattr(model, "gibbs", lambda v_RD, steps: v_RD)
    weights_S = exact_log_prob(model).exp().detach()
    sums = [torch.zeros_like(p) for p in model.parameters()]
    for weight, state_D in zip(weights_S, all_binary(VISIBLE), strict=True):
        carry = {"chains": state_D.expand_as(data_RD)}
        loss = model(batch_of(data_RD), carry, player="model", step=0)
        for total, slope in zip(sums, torch.autograd.grad(loss.total, list(model.parameters())), strict=True):
            total += weight * slope
    return sums


def check_gradients(model: RBM, monkeypatch: pytest.MonkeyPatch) -> None:
    data_RD = all_binary(VISIBLE)[torch.randint(2**VISIBLE, (3,))]
    index_R = (data_RD @ 2.0 ** torch.arange(VISIBLE - 1, -1, -1, dtype=torch.float64)).long()
    nats = -exact_log_prob(model)[index_R].sum()
    exact = torch.autograd.grad(nats, list(model.parameters()))
    for ours, wanted in zip(expected_gradients(model, data_RD, monkeypatch), exact, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-12)


def test_expected_gradient_is_that_of_the_likelihood(randomised: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = randomised(configure().build())
    check_gradients(model, monkeypatch)
    true = model.free_energy
    monkeypatch.setattr(model, "free_energy", lambda v_RD: true(v_RD) + v_RD @ model.visible_bias_D)
    with pytest.raises((AssertionError, RuntimeError)):
        check_gradients(model, monkeypatch)


def test_chains_go_on_from_the_carry(randomised: Any) -> None:
    model, carry = randomised(configure(gibbs_steps=3).build()), {"chains": all_binary(VISIBLE)}
    torch.manual_seed(4)
    first = model(batch_of(all_binary(VISIBLE)), carry, player="model", step=0)
    torch.manual_seed(4)
    torch.bernoulli(all_binary(VISIBLE))
    assert torch.equal(first.carry["chains"], model.gibbs(carry["chains"], 3))
    assert not first.carry["chains"].requires_grad
    assert first.count == 2**VISIBLE
    assert torch.equal(carry["chains"], all_binary(VISIBLE)), "the carry handed in is left as it was"


def assert_drawn_from(samples_RD: Tensor, log_prob_S: Tensor) -> None:
    index_R = (samples_RD.double() @ 2.0 ** torch.arange(VISIBLE - 1, -1, -1, dtype=torch.float64)).long()
    expected_S = log_prob_S.detach().exp() * len(samples_RD)
    counts_S = index_R.bincount(minlength=len(expected_S))
    assert stats.chisquare(counts_S.numpy(), expected_S.numpy()).pvalue > 1e-4


def test_samples_follow_the_distribution() -> None:
    torch.manual_seed(0)
    model = configure(initial_std=1.0).build().double()
    assert_drawn_from(model.sample(4000), exact_log_prob(model))
    with pytest.raises(AssertionError):
        assert_drawn_from(model.initial_carry(4000)["chains"], exact_log_prob(model))


def test_chains_start_at_fair_coin_flips() -> None:
    torch.manual_seed(0)
    chains = configure().build().initial_carry(8000)["chains"]
    assert_drawn_from(chains, torch.zeros(2**VISIBLE).log_softmax(0).double())


def test_encodes_to_hidden_probabilities(randomised: Any) -> None:
    model, v_D = randomised(configure().build()), all_binary(VISIBLE)[11]
    weights = torch.stack([-energy(model, v_D, h_H) for h_H in all_binary(HIDDEN)]).softmax(0)
    encoded_RH = model.encode(batch_of(v_D[None]))
    torch.testing.assert_close(encoded_RH[0], weights @ all_binary(HIDDEN), rtol=0, atol=1e-12)


def test_grey_values_are_probabilities() -> None:
    """The loss of grey data is that of binary draws from it."""
    model, carry = configure().build(), {"chains": torch.zeros(2000, VISIBLE)}
    seen: list[Tensor] = []
    true = model.free_energy
    model.free_energy = lambda v_RD: (seen.append(v_RD), true(v_RD))[1]
    torch.manual_seed(0)
    model(batch_of(torch.full((2000, VISIBLE), 0.3)), carry, player="model", step=0)
    assert set(seen[0].unique().tolist()) == {0.0, 1.0}
    assert float(seen[0].mean()) == pytest.approx(0.3, abs=4 * math.sqrt(0.21 / 10000))


def test_learns_the_bars() -> None:
    """Four of sixteen images: close to ln 4 by exact likelihood, which independent pixels (4 ln 2) are far from."""
    torch.manual_seed(0)
    model = configure(num_visible=4, num_hidden=8, gibbs_steps=2, initial_std=0.1).build()
    bars_RD = torch.eye(4).repeat(16, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    carry = model.initial_carry(64)
    for step in range(600):
        loss = model(batch_of(bars_RD), carry, player="model", step=step)
        carry = loss.carry
        optimizer.zero_grad()
        (loss.total / loss.count).backward()
        optimizer.step()
    with torch.no_grad():
        states = all_binary(4).float()
        log_prob = -model.free_energy(states)
        nats = log_prob.logsumexp(0) + model.free_energy(torch.eye(4)).mean()
    assert math.log(4) <= float(nats) < 1.8


def test_low_precision_weights_read_float32_data() -> None:
    model = configure().build().to(torch.bfloat16)
    carry = model.initial_carry(6)
    loss = model(batch_of(torch.rand(6, VISIBLE)), carry, player="model", step=0)
    loss.total.backward()
    assert loss.total.dtype == torch.float32
    assert loss.carry["chains"].dtype == carry["chains"].dtype
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_reconstruction_is_the_mean_field_cross_entropy(randomised: Any) -> None:
    model, v_RD = randomised(configure().build()), all_binary(VISIBLE)
    loss = model(batch_of(v_RD), {"chains": v_RD}, player="model", step=0)
    p_RD = (model.encode(batch_of(v_RD)) @ model.weight_DH.T + model.visible_bias_D).sigmoid()
    wanted = F.binary_cross_entropy(p_RD, v_RD, reduction="sum").detach()
    torch.testing.assert_close(loss.metrics["reconstruction_nats"], wanted, rtol=1e-10, atol=0)


def check_log_partition(model: RBM) -> None:
    states_SD = all_binary(VISIBLE)
    every = torch.stack([-energy(model, v_D, h_H) for v_D in states_SD for h_H in all_binary(HIDDEN)])
    assert model.log_partition() == pytest.approx(float(every.logsumexp(0).detach()), abs=1e-9)


@pytest.mark.parametrize("num_hidden", [HIDDEN, VISIBLE + 2])
def test_log_partition_is_the_sum_over_all_states(
    num_hidden: int, randomised: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over hidden states where there are fewer of them, else over visible ones; in one block or in many."""
    monkeypatch.setattr(rbm, "ENUMERATED_AT_ONCE", 5)
    model = randomised(configure(num_hidden=num_hidden).build())
    log_prob_S = model.unnormalized_log_prob(batch_of(all_binary(VISIBLE))) - model.log_partition()
    assert float(log_prob_S.exp().sum().detach()) == pytest.approx(1.0, abs=1e-12)
    torch.testing.assert_close(log_prob_S.sum(), (-model.free_energy(all_binary(VISIBLE))).log_softmax(0).sum())
    if num_hidden == HIDDEN:
        check_log_partition(model)
        model.log_partition = lambda: RBM.log_partition(model) + math.log1p(-(2.0**-HIDDEN))  # a state left out
        with pytest.raises(AssertionError):
            check_log_partition(model)


def test_log_partition_of_many_units_is_refused() -> None:
    with pytest.raises(BadInput, match=r"num_visible 30 and num_hidden 25: .* at most 24; estimate it by annealed"):
        configure(num_visible=30, num_hidden=25).build().log_partition()


def check_chains_start_at_the_data(model: RBM) -> None:
    batch = batch_of(all_binary(VISIBLE))
    torch.manual_seed(4)
    loss = model(batch, model.initial_carry(batch.rows), player="model", step=0)
    torch.manual_seed(4)
    torch.bernoulli(batch.values)
    chains_RD = RBM.gibbs(model, batch.values, 3)
    wanted = (model.free_energy(batch.values) - model.free_energy(chains_RD)).sum()
    torch.testing.assert_close(loss.total, wanted, rtol=0, atol=1e-12)
    assert loss.carry is None


def test_contrastive_divergence_starts_at_the_data(randomised: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = randomised(configure(chains="data", gibbs_steps=3).build())
    check_chains_start_at_the_data(model)
    monkeypatch.setattr(model, "gibbs", lambda v_RD, steps: RBM.gibbs(model, model._coin_flips(len(v_RD)), steps))
    with pytest.raises(AssertionError):
        check_chains_start_at_the_data(model)


def contrastive_gradient(model: RBM, kernel_SS: Tensor, steps: int) -> Tensor:
    """The expected CD-k gradient of the weights for a row in each state, from the exact Gibbs kernel."""
    states_SD = all_binary(VISIBLE)
    ended_S = torch.linalg.matrix_power(kernel_SS, steps).mean(0)
    total = (model.free_energy(states_SD) * (1 / len(states_SD) - ended_S)).sum()
    return torch.autograd.grad(total, model.weight_DH)[0]


def test_contrastive_divergence_tends_to_the_gradient_of_the_likelihood(
    randomised: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the model's own kernel: biased after one step, without bias after very many."""
    model = randomised(configure().build())
    (exact,) = torch.autograd.grad(-exact_log_prob(model).mean(), model.weight_DH)
    kernel_SS = gibbs_kernel(model, monkeypatch)
    errors = [float((contrastive_gradient(model, kernel_SS, k) - exact).abs().max()) for k in (1, 4, 2000)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[0] > 1e-4
    assert errors[2] < 1e-9


def test_contrastive_divergence_of_grey_rows_starts_at_their_draw(
    randomised: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The chain and the row that it is compared with start at the same zeros and ones."""
    model, started, scored = randomised(configure(chains="data").build()), [], []
    true = model.free_energy
    monkeypatch.setattr(model, "gibbs", lambda v_RD, steps: started.append(v_RD) or v_RD)
    monkeypatch.setattr(model, "free_energy", lambda v_RD: scored.append(v_RD) or true(v_RD))
    model(batch_of(torch.full((40, VISIBLE), 0.4, dtype=torch.float64)), None, player="model", step=0)
    assert set(started[0].unique().tolist()) == {0.0, 1.0}
    assert torch.equal(started[0], scored[0])


@pytest.mark.parametrize(("num_visible", "num_hidden"), [(3, 9), (9, 3)])
def test_the_smaller_side_is_enumerated(num_visible: int, num_hidden: int, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []
    true = torch.arange
    monkeypatch.setattr(rbm.torch, "arange", lambda count, **how: counted.append(count) or true(count, **how))
    configure(num_visible=num_visible, num_hidden=num_hidden).build().log_partition()
    assert counted == [3, 2**3]
