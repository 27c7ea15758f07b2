"""The adversarial models: who learns in which turn, shapes, values, and the clipping of a critic.

Shape legend: R rows, D values.
"""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from data_pipeline.batch import VectorBatch
from data_pipeline.config import BadInput
from data_pipeline.data import DigitsConfig, EightGaussiansConfig
from pretrain import config as recipes
from pretrain.models import GANConfig

GAMES: dict[str, dict[str, Any]] = {
    "minimax": {"kind": "cross_entropy", "generator_descends": "minimax"},
    "non_saturating": {"kind": "cross_entropy", "generator_descends": "non_saturating"},
    "clipping": {"kind": "wasserstein_clipping", "bound": 0.05},
    "penalty": {"kind": "wasserstein_penalty", "penalty": 7.0},
}
NETWORKS: dict[str, dict[str, Any]] = {
    "perceptron": {
        "row_shape": [5],
        "generator": {"kind": "perceptron", "widths": [8]},
        "critic": {"kind": "perceptron", "widths": [8, 6]},
    },
    "convolutional": {
        "row_shape": [1, 8, 4],
        "generator": {"kind": "convolutional", "channels": [3, 5]},
        "critic": {"kind": "convolutional", "channels": [2, 4]},
    },
}
every_game = pytest.mark.parametrize("game", GAMES)
every_network = pytest.mark.parametrize("network", NETWORKS)


def configure(game: str = "penalty", network: str = "perceptron", **settings: Any) -> GANConfig:
    sizes = {"latent_width": 3, "values": "unit", **NETWORKS[network], "game": GAMES[game]}
    return GANConfig.model_validate({"kind": "gan", **sizes, **settings})


def batch_of(values_RD: Tensor) -> VectorBatch:
    rows = len(values_RD)
    return VectorBatch(values_RD, torch.zeros(rows, dtype=torch.int64), torch.arange(rows))


def data_of(config: GANConfig, rows: int = 6) -> VectorBatch:
    return batch_of(torch.rand(rows, torch.Size(config.row_shape).numel()))


def test_turns() -> None:
    assert configure(critic_steps=3).build().turns(7) == ("critic", "critic", "critic", "generator")


@every_game
@every_network
@pytest.mark.parametrize("others_frozen", [True, False])
@pytest.mark.parametrize(("player", "other"), [("critic", "generator"), ("generator", "critic")])
def test_gradient_reaches_exactly_the_player(
    game: str, network: str, player: str, other: str, others_frozen: bool
) -> None:
    config = configure(game, network)
    model = config.build()
    if others_frozen:
        getattr(model, other).requires_grad_(False)
    model(data_of(config), None, player=player, step=0).total.backward()
    assert all(p.grad is None for _, p in model.player_parameters(other))
    slopes = {name: p.grad for name, p in model.player_parameters(player)}
    assert all(slope is not None for slope in slopes.values())
    assert all(slope.abs().max() > 0 for name, slope in slopes.items() if name.endswith("weight"))


def test_a_critic_that_is_not_frozen_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pretrain.models.adversarial.gan.frozen", lambda module, values: module(values))
    with pytest.raises(AssertionError):
        test_gradient_reaches_exactly_the_player("penalty", "perceptron", "generator", "critic", others_frozen=False)


@every_game
@every_network
@pytest.mark.parametrize("player", ["critic", "generator"])
def test_gradients_equal_finite_differences(game: str, network: str, player: str, randomised: Any) -> None:
    """Through the second derivative that the penalty needs; smooth, so that no step crosses a kink."""
    smooth = {name: {**NETWORKS[network][name], "activation": "tanh"} for name in ("generator", "critic")}
    config = configure(game, network, **smooth)
    model = randomised(config.build())
    batch = data_of(config, 3)
    names = [name for name, _ in model.player_parameters(player)]

    def total(*weights: Tensor) -> Tensor:
        torch.manual_seed(3)
        replaced = dict(zip(names, weights, strict=True))
        return functional_call(model, replaced, (batch, None), {"player": player, "step": 0}).total

    weights = tuple(p.detach().clone().requires_grad_() for _, p in model.player_parameters(player))
    assert torch.autograd.gradcheck(total, weights, eps=1e-6, atol=1e-5, fast_mode=True)


@every_network
def test_samples(network: str) -> None:
    config = configure(network=network)
    model = config.build()
    torch.manual_seed(1)
    first = model.sample(7)
    assert first.shape == (7, torch.Size(config.row_shape).numel())
    assert not first.requires_grad
    assert bool(((first > 0) & (first < 1)).all())
    torch.manual_seed(1)
    assert torch.equal(model.sample(7), first)
    assert not torch.equal(model.sample(7), first)


def test_real_samples_are_the_logits_of_those_between_0_and_1(randomised: Any) -> None:
    unit, real = randomised(configure().build()), configure(values="real").build().double()
    real.load_state_dict(unit.state_dict())
    z_NZ = torch.randn(4, 3, dtype=torch.float64)
    torch.testing.assert_close(real.decode(z_NZ).sigmoid(), unit.decode(z_NZ))


def check_clipping(model: Any) -> None:
    """The critic ends within the bound, moved no further than it must; the generator stays."""
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    model.after_turn("generator", 0)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    model.after_turn("critic", 0)
    bound = GAMES["clipping"]["bound"]
    for name, parameter in model.named_parameters():
        wanted = before[name].clamp(-bound, bound) if name.startswith("critic.") else before[name]
        assert torch.equal(parameter, wanted)


def test_clipping(randomised: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    check_clipping(randomised(configure("clipping").build()))
    weights_alone = randomised(configure("clipping").build())
    for name, parameter in weights_alone.critic.named_parameters():
        if name.endswith("bias"):
            monkeypatch.setattr(parameter, "clamp_", lambda low, high: None, raising=False)
    with pytest.raises(AssertionError):
        check_clipping(weights_alone)


@pytest.mark.parametrize("game", ["minimax", "non_saturating", "penalty"])
def test_other_games_clip_nothing(game: str, randomised: Any) -> None:
    model = randomised(configure(game).build())
    before = [p.detach().clone() for p in model.parameters()]
    for player in model.players:
        model.after_turn(player, 0)
    assert all(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))


@every_game
def test_low_precision_weights_read_float32_data(game: str) -> None:
    config = configure(game)
    model = config.build().to(torch.bfloat16)
    for player in model.players:
        loss = model(data_of(config), None, player=player, step=0)
        assert loss.total.dtype == torch.float32
        assert all(p.grad is None for p in model.parameters())
        loss.total.backward()
        assert all(p.grad.isfinite().all() for _, p in model.player_parameters(player))
        model.zero_grad()


@every_game
def test_scoring_without_gradients_gives_the_same_loss(game: str) -> None:
    """The penalty needs a slope even where nothing is trained."""
    config = configure(game)
    model, batch = config.build(), data_of(config)
    torch.manual_seed(2)
    trained = model(batch, None, player="critic", step=0)
    torch.manual_seed(2)
    with torch.no_grad():
        scored = model(batch, None, player="critic", step=0)
    torch.testing.assert_close(scored.total, trained.total.detach())


def test_data_that_does_not_fit_is_refused() -> None:
    assert configure(row_shape=[2], values="real").problem(EightGaussiansConfig(kind="eight_gaussians")) is None
    unit = configure(row_shape=[2]).problem(EightGaussiansConfig(kind="eight_gaussians"))
    assert unit is not None
    assert "model.values=real" in unit
    other = configure().problem(DigitsConfig(kind="digits"))
    assert other is not None
    assert "[1, 8, 8]" in other


def test_images_that_cannot_be_halved_are_refused() -> None:
    values = configure(network="convolutional").model_dump(mode="json") | {"row_shape": [1, 6, 4]}
    with pytest.raises(BadInput, match=r"critic: rows of shape \[1, 6, 4\] cannot be halved 2 times.*divisible by 4"):
        recipes.parse(GANConfig, values, source="a recipe")


def test_latents_are_standard_normal() -> None:
    """By mean, variance and the share beyond two deviations, which uniform numbers of equal variance have not."""
    torch.manual_seed(0)
    z_N = configure(latent_width=5).build()._latents(4000).flatten()
    assert float(z_N.mean()) == pytest.approx(0.0, abs=4 / len(z_N) ** 0.5)
    assert float(z_N.var()) == pytest.approx(1.0, abs=4 * (2 / len(z_N)) ** 0.5)
    beyond = 1 - math.erf(2 / 2**0.5)
    assert float((z_N.abs() > 2).double().mean()) == pytest.approx(beyond, abs=4 * (beyond / len(z_N)) ** 0.5)


def test_no_value_of_a_game_has_a_direction() -> None:
    assert configure().build().lower_is_better == set()
