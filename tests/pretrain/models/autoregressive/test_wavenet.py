"""WaveNets of a few samples: exact by enumeration; how far they look; the cache against the full forward."""

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from data_pipeline.config import BadInput
from pretrain.distributions import logistic
from pretrain.models.autoregressive.visible import VisibleModel
from pretrain.models.autoregressive.wavenet import WaveNet, WaveNetConfig
from pretrain.models.autoregressive.wavenet_layers import LayerCache
from pretrain.quantizers.mu_law import mu_law_codes, mu_law_values
from tests.pretrain.models.autoregressive.exact import all_states, batch_of, completions_fit, counts_of, draws_fit, fits

SIZES = {"residual_features": 6, "skip_features": 16, "dilations": (1, 2, 1)}
MU_LAW = {"output": "mu_law", "num_codes": 4, "length_of_wave": 4}
LOGISTIC = {"output": "logistic", "num_components": 3, "levels": 4, "length_of_wave": 4}
both = pytest.mark.parametrize("settings", [MU_LAW, LOGISTIC], ids=["mu_law", "logistic"])


def build(**settings: Any) -> WaveNet:
    return WaveNetConfig(kind="wavenet", **{**SIZES, **settings}).build()


def states(model: WaveNet) -> Tensor:
    """Every wave of four samples."""
    states_SD = all_states(4, 4)
    if model.config.output == "mu_law":
        return mu_law_values((states_SD * 3).round().long(), 4, torch.float64)
    return states_SD


@torch.no_grad()
def total(model: WaveNet, label: int = 0) -> float:
    return float(model.log_prob(batch_of(states(model), label)).exp().sum())


class SeesItself(WaveNet):
    """The mutant: not shifted by a sample."""

    def parameters_of(self, x_RT: Tensor, labels_R: Tensor | None) -> Tensor:
        return super().parameters_of(torch.cat([x_RT[:, 1:], x_RT[:, -1:]], 1).roll(0, 1), labels_R)


@both
def test_probabilities_sum_to_one(settings: dict[str, Any], randomised: Any) -> None:
    model = randomised(build(classes=2, **settings))
    assert [total(model, label) for label in range(2)] == pytest.approx([1, 1], abs=1e-9)
    mutant = randomised(SeesItself(WaveNetConfig(kind="wavenet", **SIZES, **settings)))
    assert abs(total(mutant) - 1) > 1e-7


@pytest.mark.parametrize("output", ["mu_law", "logistic"])
def test_one_sample_sums_to_one_over_all_its_levels(output: str, randomised: Any) -> None:
    """65,536 of a mixture, both edges included; 256 codes."""
    model = randomised(build(length_of_wave=1, output=output))
    levels = torch.arange(65_536, dtype=torch.float64) / 65_535
    values = levels if output == "logistic" else mu_law_values(torch.arange(256), 256, torch.float64)
    chances = model.log_prob(batch_of(values[:, None])).exp()
    assert float(chances.sum()) == pytest.approx(1, abs=1e-9)
    assert abs(float(chances[1:-1].sum()) - 1) > 1e-9, "edges hold what is outside"


@pytest.mark.parametrize(("kernel", "dilations", "wanted"), [(2, (1, 2, 4, 8, 1, 2, 4, 8), 31), (3, (1, 2, 4), 15)])
def test_receptive_field_by_gradient(kernel: int, dilations: tuple[int, ...], wanted: int, randomised: Any) -> None:
    length = 40
    sizes = {"length_of_wave": length, "kernel": kernel, "dilations": dilations, "skip_features": 40}
    model = randomised(build(output="logistic", **sizes))
    x_RT = torch.rand(1, length, dtype=torch.float64, requires_grad=True)
    (slope_RT,) = torch.autograd.grad(model.parameters_of(x_RT, None)[0, 36].sum(), x_RT)
    seen = slope_RT[0].nonzero()[:, 0].tolist()
    assert seen == list(range(36 - wanted, 36))
    assert model.config.receptive_field == wanted
    model.layers[1].dilation, model.layers[1].taps.dilation = 1, (1,)
    (slope_RT,) = torch.autograd.grad(model.parameters_of(x_RT, None)[0, 36].sum(), x_RT)
    assert slope_RT[0].nonzero()[:, 0].tolist() == list(range(36 - wanted + kernel - 1, 36)), "one dilation is wrong"


def forgets_when(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mutant: a ring read one sample late."""
    advance = LayerCache.advance
    monkeypatch.setattr(LayerCache, "advance", lambda self, h, t: advance(self, h, t + (t > 3)))


@torch.no_grad()
def difference_from_full_forward(model: WaveNet, labels_N: Tensor | None) -> float:
    x_NT = torch.rand(3, model.config.length_of_wave, dtype=torch.float64)
    full_NTP, cache, h_NF = model.parameters_of(x_NT, labels_N), model.cache(3, labels_N), None
    worst = 0.0
    for t in range(x_NT.shape[1]):
        worst = max(worst, float((model.head(cache.advance(h_NF)) - full_NTP[:, t]).abs().max()))
        h_NF = model.step_input(x_NT[:, t])
    return worst


@pytest.mark.parametrize("kernel", [2, 3])
@pytest.mark.parametrize("output", ["mu_law", "logistic"])
def test_cached_sampling_equals_the_full_forward(
    kernel: int, output: str, randomised: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"dilations": (1, 2, 4, 8, 1, 2, 4, 8), "length_of_wave": 80, "classes": 3, "kernel": kernel}
    model = randomised(build(output=output, **settings))
    labels_N = torch.tensor([2, 0, 1])
    assert difference_from_full_forward(model, labels_N) < 1e-12
    forgets_when(monkeypatch)
    assert difference_from_full_forward(model, labels_N) > 1e-8


def test_a_drawn_sample_costs_one_step_of_each_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    model, steps = build(length_of_wave=50), []
    advance = LayerCache.advance
    monkeypatch.setattr(LayerCache, "advance", lambda self, h, t: (steps.append(h.shape), advance(self, h, t))[1])
    monkeypatch.setattr(WaveNet, "parameters_of", None)
    model.sample(2)
    assert steps == [(2, 6)] * (50 * 3)


@both
def test_samples_have_the_enumerated_probabilities(
    settings: dict[str, Any], randomised: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = randomised(build(**settings))

    def right() -> bool:
        if model.config.output == "logistic":
            return draws_fit(model, 4, 4)
        with torch.no_grad():
            p_S = model.log_prob(batch_of(states(model))).exp()
        return fits(counts_of(mu_law_codes(model.sample(100_000), 4) / 3.0, 4), p_S)

    assert right()
    monkeypatch.setattr(LayerCache, "advance", lambda self, h, t, real=LayerCache.advance: real(self, 0.5 * h, t))
    assert not right()


def test_completions_have_the_conditional_probabilities(randomised: Any) -> None:
    torch.manual_seed(0)
    model = randomised(build(**LOGISTIC))
    state_D = torch.tensor([1, 0, 2, 1], dtype=torch.float64) / 3
    assert completions_fit(model, [True, True, False, False], state_D, 4)
    assert not completions_fit(model, [True, False, False, True], state_D, 4), "later values are not seen"


def test_samples_of_a_class(randomised: Any) -> None:
    torch.manual_seed(0)
    model = randomised(build(classes=2, **LOGISTIC))
    with torch.no_grad():
        p_CS = torch.stack([model.log_prob(batch_of(states(model), label)).exp() for label in range(2)])
    counts_S = counts_of(model.sample_of(torch.full((50_000,), 1)), 4)
    assert fits(counts_S, p_CS[1])
    assert not fits(counts_S, p_CS[0])


def test_a_layer_is_the_paper_s(randomised: Any) -> None:
    """Equation 2, sample by sample, of one layer and one class."""
    model = randomised(build(length_of_wave=6, dilations=(2,), classes=2, output="logistic"))
    x_RT, label = torch.rand(1, 6, dtype=torch.float64), 1
    found_RTP = model.parameters_of(x_RT, torch.tensor([label]))
    (layer,), nothing = model.layers, torch.zeros(6, dtype=torch.float64)

    def h(t: int) -> Tensor:
        return model.first(2 * x_RT[0, t - 1].view(1) - 1) if t >= 1 else nothing

    for t in range(6):
        a_G = layer.taps.weight[:, :, 1] @ h(t) + layer.taps.weight[:, :, 0] @ h(t - 2) + layer.taps.bias
        a_G = a_G + layer.class_table.weight[label]
        skip_S = layer.skip(torch.tanh(a_G[:6]) * torch.sigmoid(a_G[6:]))
        wanted_P = model.output(torch.relu(model.before_output(torch.relu(skip_S))))
        torch.testing.assert_close(found_RTP[0, t], wanted_P, rtol=0, atol=1e-9)


def test_what_is_no_wave_is_refused() -> None:
    for settings, values in ((MU_LAW, -0.5), (LOGISTIC, 3.0)):
        with pytest.raises(BadInput, match=r"must lie from 0 to 1, .* scale them"):
            build(**settings).log_prob(batch_of(torch.full((1, 4), values)))
    for settings in (MU_LAW, LOGISTIC):
        with pytest.raises(BadInput, match=r"from nan to nan: must lie from 0 to 1"):
            build(**settings).log_prob(batch_of(torch.tensor([[0.0, float("nan"), 0.5, 1.0]])))
    for dilation in (0, -1):
        with pytest.raises(ValidationError, match=r"dilations\.1\n  Input should be greater than 0"):
            build(**{**MU_LAW, "dilations": (1, dilation)})


def test_a_constant_wave_costs_nearly_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the 65,536 levels of 16 bits, in float32; and at the beginning every parameter's gradient is alive."""
    model = build(output="logistic", length_of_wave=8, num_components=2)
    value = 40_000 / 65_535
    batch = batch_of(torch.full((1, 8), value))
    (-model.log_prob(batch).sum()).backward()
    rows_KMS = model.output.weight.grad.view(3, 2, -1)
    assert bool((rows_KMS.abs().amax(-1)[1:] > 1e-3).all()), "means and scales move"
    with torch.no_grad():
        model.output.weight.zero_()
        model.output.bias.copy_(torch.tensor([0, 0, 2 * value - 1, 2 * value - 1, -20, -20]))
    assert -float(model.log_prob(batch).detach()) / 8 < 0.1
    monkeypatch.setattr(logistic, "lowest_log_scale", lambda _: -7.0)
    assert -float(model.log_prob(batch).detach()) / 8 > 5, "one floor for all: 60 bins wide"


@both
def test_values_are_no_coarser_than_the_data_s_where_weights_are(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In bfloat16 two of 256 codes are often one number."""
    finest = {"num_codes": 256} if settings["output"] == "mu_law" else {"levels": 65_536}
    model = build(**{**settings, **finest, "length_of_wave": 50}).to(torch.bfloat16)

    def kept() -> bool:
        drawn_ND, known_ND = model.sample(20), torch.rand(20, 50)
        places = drawn_ND * 65_535 if settings["output"] == "logistic" else None
        exact_ND = mu_law_values(mu_law_codes(drawn_ND, 256), 256) if places is None else places.round() / 65_535
        same = torch.equal(model.complete(known_ND, torch.ones(20, 50, dtype=torch.bool)).double(), known_ND.double())
        return same and torch.allclose(drawn_ND.float(), exact_ND.float(), rtol=0, atol=1e-7)

    assert kept()
    draw = WaveNet.draw
    monkeypatch.setattr(WaveNet, "draw", lambda self, v, k, labels: draw(self, v.bfloat16(), k, labels))
    assert not kept()


def test_a_completion_of_another_shape_is_refused() -> None:
    model: VisibleModel = build(classes=2, **LOGISTIC)
    all_known = torch.ones(3, 4, dtype=torch.bool)
    for values_ND, known_ND in (
        (torch.zeros(3, 5), torch.ones(3, 5, dtype=torch.bool)),
        (torch.zeros(3, 4), all_known[:, :3]),
        (torch.zeros(3, 4), all_known[0]),
        (torch.zeros(4), all_known[0]),
    ):
        shapes = rf"values of shape \[{', '.join(map(str, values_ND.shape))}\], known of \[.*must be \[rows, 4\]"
        with pytest.raises(BadInput, match=shapes):
            model.complete(values_ND, known_ND)
    with pytest.raises(BadInput, match=r"labels of shape \[2\]: must be \[3\], one for each row; give as many"):
        model.complete(torch.zeros(3, 4), all_known, torch.tensor([0, 1]))
    with pytest.raises(BadInput, match=r"from 1\.5 to 1\.5: must lie from 0 to 1"):
        model.complete(torch.full((3, 4), 1.5), all_known)
    assert bool((model.complete(torch.full((3, 4), 1.5), ~all_known) <= 1).all()), "what is not known is not read"


@pytest.mark.parametrize("output", ["mu_law", "logistic"])
def test_operations_of_a_row(output: str) -> None:
    """As torch counts them: no tables, and the first layer reads no last sample."""
    model = build(output=output, length_of_wave=50, classes=3, kernel=3)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.log_prob(batch_of(torch.rand(5, 50)))
    assert counter.get_total_flops() == 5 * model.flops_per_count()
