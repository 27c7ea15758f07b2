"""ACAI: who learns in which turn, what each descends, and what the best critic says.

Shape legend: R rows, D values, Z latents, S states.
"""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from data_pipeline.batch import VectorBatch
from data_pipeline.config import BadInput
from pretrain import config
from pretrain.experiment import Experiment
from pretrain.models import ACAIConfig
from pretrain.models.adversarial.acai import ACAI


def configure(**settings: Any) -> ACAIConfig:
    network = {"kind": "perceptron", "widths": [8]}
    sizes = {"row_shape": [5], "latent_width": 3, "encoder": network, "decoder": network, "critic": network}
    return ACAIConfig.model_validate({"kind": "acai", **sizes, **settings})


def batch_of(values_RD: Tensor) -> VectorBatch:
    rows = len(values_RD)
    return VectorBatch(values_RD, torch.zeros(rows, dtype=torch.int64), torch.arange(rows))


def doubles(rows: int = 6) -> VectorBatch:
    return batch_of(torch.rand(rows, 5, dtype=torch.float64))


@pytest.mark.parametrize(("player", "other"), [("critic", "autoencoder"), ("autoencoder", "critic")])
def test_gradient_reaches_exactly_the_player(player: str, other: str) -> None:
    model = configure().build()
    model(batch_of(torch.rand(6, 5)), None, player=player, step=0).total.backward()
    assert all(p.grad is None for _, p in model.player_parameters(other))
    assert all(p.grad is not None and p.grad.abs().max() > 0 for _, p in model.player_parameters(player))


def test_a_critic_that_is_not_frozen_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pretrain.models.adversarial.acai.frozen", lambda module, values: module(values))
    with pytest.raises(AssertionError):
        test_gradient_reaches_exactly_the_player("autoencoder", "critic")


def slopes(model: ACAI, batch: VectorBatch) -> list[Tensor]:
    torch.manual_seed(5)
    total = model(batch, None, player="autoencoder", step=0).total
    return list(torch.autograd.grad(total, [p for _, p in model.player_parameters("autoencoder")]))


def check_plain_autoencoder(model: ACAI) -> None:
    """The step of the mean squared error alone."""
    batch = doubles()
    error = (model.decode(model.encode(batch)) - batch.values).square().mean(-1).sum()
    plain = torch.autograd.grad(error, [p for _, p in model.player_parameters("autoencoder")])
    for ours, wanted in zip(slopes(model, batch), plain, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-12)


def test_with_a_constant_critic_the_step_is_the_plain_autoencoders(randomised: Any) -> None:
    model = randomised(configure().build())
    with pytest.raises(AssertionError):
        check_plain_autoencoder(model)
    nn.init.zeros_(model.critic[-1].weight)
    check_plain_autoencoder(model)
    check_plain_autoencoder(randomised(configure(regularization=0.0).build()))


def check_objectives(model: ACAI) -> None:
    """Both equations, written out row by row."""
    batch, rows = doubles(), 6
    torch.manual_seed(7)
    alpha_R = torch.rand(rows, 1, dtype=torch.float64)[:, 0] / 2
    x, z = batch.values, model.encode(batch)
    mixed = [alpha_R[r] * z[r] + (1 - alpha_R[r]) * z[(r - 1) % rows] for r in range(rows)]
    said = [model.critic(model.decode(m[None]))[0, 0] for m in mixed]
    made = model.decode(z)
    real = [model.critic((0.2 * x[r] + 0.8 * made[r])[None])[0, 0] for r in range(rows)]
    squared = sum((x[r] - made[r]).square().sum() / 5 for r in range(rows))
    wanted = {
        "autoencoder": squared + 0.5 * sum(d**2 for d in said),
        "critic": sum((d - a) ** 2 for d, a in zip(said, alpha_R, strict=True)) + sum(d**2 for d in real),
    }
    for player, total in wanted.items():
        torch.manual_seed(7)
        loss = model(batch, None, player=player, step=0)
        assert loss.count == rows
        torch.testing.assert_close(loss.total, total, rtol=0, atol=1e-12)


def test_objectives_are_the_papers(randomised: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    check_objectives(randomised(configure().build()))
    true = ACAI._mixed
    monkeypatch.setattr(ACAI, "_mixed", lambda model, z, alpha: true(model, z, 1 - alpha))
    with pytest.raises(AssertionError):
        check_objectives(randomised(configure().build()))


class Table(nn.Module):
    """A value for each of S states, which are numbered by the first value of a row."""

    def __init__(self, states: int) -> None:
        super().__init__()
        self.values_S = nn.Parameter(torch.zeros(states, dtype=torch.float64))

    def forward(self, rows_RD: Tensor) -> Tensor:
        return self.values_S[rows_RD[:, 0].long(), None]


def best_table(model: ACAI, batch: VectorBatch) -> Tensor:
    """[S] of the critic's own turn, with the same draw of alpha each time: Newton's method on a quadratic."""
    torch.manual_seed(11)
    state = torch.get_rng_state()

    def total(values_S: Tensor) -> Tensor:
        torch.set_rng_state(state)
        return torch.func.functional_call(
            model, {"critic.values_S": values_S}, (batch, None), {"player": "critic", "step": 0}
        ).total

    zeros_S = torch.zeros(3, dtype=torch.float64)
    slope_S = torch.autograd.functional.jacobian(total, zeros_S)
    return -torch.linalg.solve(torch.autograd.functional.hessian(total, zeros_S), slope_S)


def check_best_critic(model: ACAI) -> None:
    """Mixtures of 0s and 1s fall in state 1 (alpha below a quarter) or 2, reconstructions and data in state 0."""
    batch = batch_of(torch.zeros(4000, 5, dtype=torch.float64))
    torch.manual_seed(11)
    alpha_R = torch.rand(4000, 1, dtype=torch.float64)[:, 0] / 2
    low = alpha_R < 0.25
    wanted_S = torch.stack([torch.zeros_like(alpha_R[0]), alpha_R[low].mean(), alpha_R[~low].mean()])
    found_S = best_table(model, batch)
    torch.testing.assert_close(found_S, wanted_S, rtol=0, atol=1e-9)
    assert float(found_S[1]) == pytest.approx(1 / 8, abs=4 * 0.25 / (12 * 2000) ** 0.5)
    assert float(found_S[2]) == pytest.approx(3 / 8, abs=4 * 0.25 / (12 * 2000) ** 0.5)


def with_known_mixtures(monkeypatch: pytest.MonkeyPatch) -> ACAI:
    model = configure().build().double()
    model.critic = Table(3)  # type: ignore[assignment]
    monkeypatch.setattr(model.autoencoder, "decode", lambda z_NZ: torch.zeros(len(z_NZ), 5, dtype=torch.float64))
    monkeypatch.setattr(model, "_mixed", lambda z, alpha: 1 + (alpha >= 0.25).double().expand(-1, 5))
    return model


def test_the_best_critic_says_the_expected_alpha(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a space of three states, where the least squares have one answer: E[alpha given the state]."""
    model = with_known_mixtures(monkeypatch)
    check_best_critic(model)
    true = model._critic_loss
    monkeypatch.setattr(model, "_critic_loss", lambda x, alpha: true(x, alpha.square()))
    monkeypatch.setattr(model, "_mixed", lambda z, squared: 1 + (squared >= 0.25**2).double().expand(-1, 5))
    with pytest.raises(AssertionError):
        check_best_critic(model)


def test_interpolations_go_straight_through_latents(randomised: Any) -> None:
    model, first, last = randomised(configure().build()), doubles(2), doubles(2)
    path_RPD = model.interpolate(first, last, 5)
    assert path_RPD.shape == (2, 5, 5)
    torch.testing.assert_close(path_RPD[:, 0], model.decode(model.encode(first)))
    torch.testing.assert_close(path_RPD[:, -1], model.decode(model.encode(last)))
    quarter = model.decode(0.75 * model.encode(first) + 0.25 * model.encode(last))
    torch.testing.assert_close(path_RPD[:, 1], quarter)


def test_low_precision_weights_read_float32_data() -> None:
    model = configure().build().to(torch.bfloat16)
    for player in model.players:
        loss = model(batch_of(torch.rand(6, 5)), None, player=player, step=0)
        assert loss.total.dtype == torch.float32
        loss.total.backward()
        assert all(p.grad.isfinite().all() for _, p in model.player_parameters(player))
        model.zero_grad()
    assert model.encode(batch_of(torch.rand(6, 5))).dtype == torch.float32


def test_images_are_read_and_written_by_convolutions() -> None:
    network = {"kind": "convolutional", "channels": [3, 4]}
    settings = {"encoder": network, "decoder": network, "critic": network}
    model = configure(row_shape=[1, 8, 8], **settings).build()
    batch = batch_of(torch.rand(2, 64))
    assert model.encode(batch).shape == (2, 3)
    assert model.decode(model.encode(batch)).shape == (2, 64)


def test_what_is_logged_is_each_part_by_its_name(randomised: Any) -> None:
    model, batch, rows = randomised(configure().build()), doubles(), 6
    torch.manual_seed(7)
    alpha_R1 = torch.rand(rows, 1, dtype=torch.float64) / 2
    x, z = batch.values, model.encode(batch)
    made = model.decode(z)
    said_R1 = model.critic(model.decode(alpha_R1 * z + (1 - alpha_R1) * z.roll(1, dims=0)))
    wanted = {
        "squared_error": (x - made).square().mean(-1).sum(),
        "critic_on_mixed": said_R1.square().sum(),
        "alpha_error": (said_R1 - alpha_R1).square().sum(),
        "reality_error": model.critic(0.2 * x + 0.8 * made).square().sum(),
    }
    found: dict[str, Tensor] = {}
    for player in model.players:
        torch.manual_seed(7)
        found |= model(batch, None, player=player, step=0).metrics
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value.detach(), rtol=0, atol=1e-12)


def test_flops_are_those_of_the_networks() -> None:
    """Of a row: encoder 5 8 3, decoder 3 8 5, critic 5 8 1; a step encodes twice, decodes four times, judges thrice."""
    encoder, decoder, critic = (2.0 * (a * 8 + 8 * b) for a, b in ((5, 3), (3, 5), (5, 1)))
    assert configure().build().flops_per_count() == (2 * encoder + 4 * decoder + 3 * critic) / 2


def test_a_row_alone_has_no_partner() -> None:
    with pytest.raises(BadInput, match=r"batch.rows=1 is too few: model.kind=acai .* set batch.rows to 2 or more"):
        config.load(Experiment, config.recipe_path("tiny_acai"), ["batch.rows=1"])
    assert config.load(Experiment, config.recipe_path("tiny_acai"), ["batch.rows=2"]).batch.rows == 2
    assert config.load(Experiment, config.recipe_path("tiny_gan"), ["batch.rows=1"]).batch.rows == 1
