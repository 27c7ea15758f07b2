"""Deep energy-based models on spaces that can be enumerated, and their store of samples.

Shape legend: R rows, D values, B samples kept for a row, S = 2^D states.
"""

import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from data_pipeline.batch import VectorBatch
from pretrain.models import EnergyBasedConfig
from pretrain.models.energy.energy_based import EnergyBased

WIDTH = 6


def configure(chains: dict[str, Any] | None = None, **settings: Any) -> EnergyBasedConfig:
    moves = {"low": 0.0, "high": 1.0, "steps": 2, "step_size": 0.1, **(chains or {})}
    network = {"kind": "perceptron", "widths": [8], "activation": "silu"}
    return EnergyBasedConfig.model_validate(
        {"kind": "energy_based", "row_shape": [WIDTH], "network": network, "chains": moves, **settings}
    )


def batch_of(values_RD: Tensor) -> VectorBatch:
    rows = len(values_RD)
    return VectorBatch(values_RD, torch.zeros(rows, dtype=torch.int64), torch.arange(rows))


def states() -> Tensor:
    return torch.cartesian_prod(*[torch.arange(2.0, dtype=torch.float64)] * WIDTH)


def exact_log_prob(model: EnergyBased) -> Tensor:
    """[S] on the finite space of all binary rows."""
    return (-model.energy(states())).log_softmax(0)


def expected_gradients(model: EnergyBased, data_RD: Tensor, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Of the model's own loss, over chains that have reached p: every state as the sample, weighted by p."""
    monkeypatch.setattr(model, "_walk", lambda x_RD, steps: x_RD)
    weights_S = exact_log_prob(model).exp().detach()
    sums = [torch.zeros_like(p) for p in model.parameters()]
    for weight, state_D in zip(weights_S, states(), strict=True):
        carry = {"samples": state_D.expand(len(data_RD), 1, -1)}
        loss = model(batch_of(data_RD), carry, player="model", step=0)
        slopes = torch.autograd.grad(loss.total, list(model.parameters()), materialize_grads=True)
        for total, slope in zip(sums, slopes, strict=True):
            total += weight * slope
    return sums


def check_gradients(model: EnergyBased, monkeypatch: pytest.MonkeyPatch) -> None:
    index_R = torch.randint(2**WIDTH, (3,))
    exact = torch.autograd.grad(-exact_log_prob(model)[index_R].sum(), list(model.parameters()))
    for ours, wanted in zip(expected_gradients(model, states()[index_R], monkeypatch), exact, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-9)


@pytest.mark.parametrize("reference_std", [None, 0.7])
def test_expected_gradient_is_that_of_the_likelihood(
    reference_std: float | None, randomised: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"chains": {"rejuvenation": 0.0}, "reference_std": reference_std}
    model = randomised(configure(**settings).build())
    check_gradients(model, monkeypatch)
    penalised = randomised(configure(energy_penalty=0.01, **settings).build())
    with pytest.raises(AssertionError):
        check_gradients(penalised, monkeypatch)


def test_unnormalized_log_prob_is_minus_the_energy(randomised: Any) -> None:
    model = randomised(configure(reference_std=0.5).build())
    x_RD = torch.randn(4, WIDTH, dtype=torch.float64)
    wanted = -model.network(x_RD)[:, 0] - 2 * x_RD.square().sum(-1)
    torch.testing.assert_close(model.unnormalized_log_prob(batch_of(x_RD)), wanted, rtol=0, atol=1e-12)


def test_samples_of_a_gaussian_have_the_variance_of_the_chain() -> None:
    """With no network left E(x) = |x|^2 / 2: 1 / (1 - lambda/4), which is 4/3 here, not 1."""
    torch.manual_seed(0)
    model = configure({"step_size": 1.0, "sampling_steps": 40}, reference_std=1.0).build().double()
    torch.nn.init.zeros_(model.network[-1].weight)
    variance = float(model.sample(5000).square().mean())
    assert variance == pytest.approx(4 / 3, abs=4 * (4 / 3) * (2 / (5000 * WIDTH)) ** 0.5)


def moved(model: EnergyBased, kept_RBD: Tensor) -> Tensor:
    loss = model(batch_of(torch.rand(len(kept_RBD), WIDTH)), {"samples": kept_RBD}, player="model", step=0)
    assert loss.carry is not None
    return loss.carry["samples"]


def check_one_sample_of_each_row_moves(model: EnergyBased) -> None:
    kept_RBD = torch.rand(200, 3, WIDTH)
    before_RBD = kept_RBD.clone()
    after_RBD = moved(model, kept_RBD)
    assert torch.equal(kept_RBD, before_RBD), "the carry handed in is left as it was"
    assert not after_RBD.requires_grad
    changed_RB = (after_RBD != before_RBD).any(-1)
    assert changed_RB.sum(-1).tolist() == [1] * 200
    assert bool((changed_RB.sum(0) > 30).all()), "each place has its turn"


def test_one_sample_of_each_row_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    model = configure({"buffer": 3, "rejuvenation": 0.0}).build()
    check_one_sample_of_each_row_moves(model)
    monkeypatch.setattr(torch.Tensor, "clone", lambda tensor: tensor)
    with pytest.raises(AssertionError):
        check_one_sample_of_each_row_moves(model)


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_chains_start_afresh_at_the_rate_asked_for(rate: float, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = configure({"low": 5.0, "high": 6.0, "rejuvenation": rate}).build()
    monkeypatch.setattr(model, "_walk", lambda x_RD, steps: x_RD)
    after_RBD = moved(model, torch.zeros(4000, 1, WIDTH))
    fresh = float((after_RBD[:, 0, 0] >= 5.0).double().mean())
    assert fresh == pytest.approx(rate, abs=4 * (rate * (1 - rate) / 4000) ** 0.5)
    assert float(after_RBD.max()) <= 6.0


def test_new_rows_are_noise_between_the_bounds() -> None:
    torch.manual_seed(0)
    carry = configure({"low": -1.0, "high": 3.0, "buffer": 4}).build().initial_carry(100)
    assert carry is not None
    assert carry["samples"].shape == (100, 4, WIDTH)
    assert float(carry["samples"].mean()) == pytest.approx(1.0, abs=4 * 4 / (12 * 2400) ** 0.5)
    assert -1 <= float(carry["samples"].min()) < -0.99


def test_spectral_penalty_is_that_of_the_singular_values(randomised: Any) -> None:
    free, bound = configure().build(), configure(spectral_penalty=0.3).build()
    randomised(free)
    bound.double().load_state_dict(free.state_dict())
    batch, carry = batch_of(torch.rand(4, WIDTH)), {"samples": torch.rand(4, 1, WIDTH, dtype=torch.float64)}
    totals = []
    for model in (free, bound):
        torch.manual_seed(1)
        totals.append(model(batch, carry, player="model", step=0).total)
    weights = [p for p in free.parameters() if p.dim() == 2]
    largest = [torch.linalg.eigvalsh(weight @ weight.T).max() for weight in weights]
    torch.testing.assert_close(totals[1] - totals[0], 4 * 0.3 / 2 * sum(largest), rtol=0, atol=1e-9)


def test_kernels_of_convolutions_count_as_matrices(randomised: Any) -> None:
    network = {"kind": "convolutional", "channels": [3], "activation": "silu"}
    model = randomised(configure(row_shape=[1, 4, 4], network=network).build())
    kernel, linear = (p.detach() for p in model.parameters() if p.dim() >= 2)
    squares = torch.linalg.svdvals(kernel.reshape(3, 16))[0] ** 2 + linear.square().sum()
    torch.testing.assert_close(model._half_spectral_squares().detach(), squares / 2, rtol=0, atol=1e-9)


def test_energy_penalty_and_noise_on_data(randomised: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = randomised(configure({"rejuvenation": 0.0}, energy_penalty=0.2, data_noise=0.5).build())
    monkeypatch.setattr(model, "_walk", lambda x_RD, steps: x_RD)
    x_RD, y_RD = torch.rand(4, WIDTH, dtype=torch.float64), torch.rand(4, WIDTH, dtype=torch.float64)
    torch.manual_seed(1)
    loss = model(batch_of(x_RD), {"samples": y_RD[:, None]}, player="model", step=0)
    torch.manual_seed(1)
    data_R, sample_R = model.energy(x_RD + 0.5 * torch.randn_like(x_RD)), model.energy(y_RD)
    wanted = (data_R - sample_R + 0.2 * (data_R.square() + sample_R.square())).sum()
    torch.testing.assert_close(loss.total, wanted, rtol=0, atol=1e-12)


def test_learns_two_points_of_a_line() -> None:
    """The density by quadrature: most of its mass ends near -1 and 1, where all data are."""
    torch.manual_seed(0)
    moves = {"low": -3.0, "high": 3.0, "steps": 10, "step_size": 0.05, "rejuvenation": 0.05}
    network = {"kind": "perceptron", "widths": [32, 32], "activation": "silu"}
    model = configure(moves, row_shape=[1], network=network, reference_std=2.0).build()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    carry = model.initial_carry(128)
    for step in range(150):
        points_RD = torch.randint(0, 2, (128, 1)) * 2.0 - 1.0 + 0.2 * torch.randn(128, 1)
        loss = model(batch_of(points_RD), carry, player="model", step=step)
        carry = loss.carry
        optimizer.zero_grad()
        (loss.total / loss.count).backward()
        optimizer.step()
    line_RD = torch.linspace(-8, 8, 4001)[:, None]
    p_R = (-model.energy(line_RD)).detach().softmax(0)
    near = float(p_R[(line_RD[:, 0].abs() - 1).abs() < 0.6].sum())
    left = float(p_R[line_RD[:, 0] < 0].sum())
    assert near > 0.85
    assert left == pytest.approx(0.5, abs=0.15)


def test_low_precision_weights_read_float32_data() -> None:
    model = configure(spectral_penalty=0.1, energy_penalty=0.1).build().to(torch.bfloat16)
    carry = model.initial_carry(6)
    loss = model(batch_of(torch.rand(6, WIDTH)), carry, player="model", step=0)
    loss.total.backward()
    assert loss.total.dtype == torch.float32
    assert loss.carry["samples"].dtype == carry["samples"].dtype == torch.bfloat16
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_bounds_that_cross_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"low 1.0 must be below high 1.0"):
        configure({"low": 1.0})
    assert math.isfinite(configure().build().flops_per_count())


def test_a_chain_has_the_noise_that_it_was_given() -> None:
    """No slope left: after n steps from 0, of variance n noise_std^2, or n step_size where there is none."""
    for noise, wanted in ((0.5, 4 * 0.25), (0.0, 0.0), (None, 4 * 0.1)):
        torch.manual_seed(0)
        model = configure({"noise_std": noise, "low": -1.0}).build()
        torch.nn.init.zeros_(model.network[-1].weight)
        moved_RD = model._walk(torch.zeros(4000, WIDTH), 4)
        variance = float(moved_RD.square().mean())
        assert variance == pytest.approx(wanted, abs=4 * wanted * (2 / moved_RD.numel()) ** 0.5)


def test_a_clamped_chain_stays_between_its_bounds() -> None:
    for clamp in (True, False):
        torch.manual_seed(0)
        model = configure({"clamp": clamp, "low": -0.2, "high": 0.3, "noise_std": 1.0}).build()
        loss = model(batch_of(torch.rand(50, WIDTH)), model.initial_carry(50), player="model", step=0)
        assert loss.carry is not None
        for values in (loss.carry["samples"], model.sample(50)):
            inside = bool(values.min() >= -0.2) and bool(values.max() <= 0.3)
            assert inside == clamp
