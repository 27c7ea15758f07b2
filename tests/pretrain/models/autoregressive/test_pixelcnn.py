"""PixelCNNs of a few pixels: exact by enumeration; what a pixel sees; a sample's cache against the full forward."""

import itertools
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from data_pipeline.config import BadInput
from pretrain.layers import masked_convolution
from pretrain.layers.masked_convolution import ConvolutionCache, MaskedConvolution
from pretrain.models.autoregressive import pixelcnn_stacks
from pretrain.models.autoregressive.pixelcnn import PixelCNN, PixelCNNConfig, centred
from pretrain.models.autoregressive.pixelcnn_stacks import GatedStacks, MaskedStack
from tests.pretrain.models.autoregressive.exact import (
    all_states,
    batch_of,
    completions_fit,
    counts_of,
    draws_fit,
    fits,
    total,
)

SIZES = {"features": 12, "output_features": 12, "num_layers": 2, "first_kernel": 3, "kernel": 3}
OUTPUTS: dict[str, dict[str, Any]] = {
    "bernoulli": {"height": 3, "width": 3},
    "softmax": {"height": 2, "width": 2, "output": "softmax", "levels": 3},
    "logistic": {"height": 2, "width": 2, "output": "logistic", "levels": 4, "num_components": 3},
    "three bernoulli": {"channels": 3, "height": 1, "width": 3},
    "two softmax": {"channels": 2, "height": 2, "width": 1, "output": "softmax", "levels": 3},
    "three logistic": {
        "channels": 3,
        "height": 2,
        "width": 1,
        "output": "logistic",
        "levels": 3,
        "num_components": 2,
    },
}
every_output = pytest.mark.parametrize("output", OUTPUTS)
both = pytest.mark.parametrize("gated", [False, True])


def build(**settings: Any) -> PixelCNN:
    return PixelCNNConfig(kind="pixelcnn", **{**SIZES, **settings}).build()


def size(model: PixelCNN) -> tuple[int, int]:
    """Values and levels."""
    config = model.config
    return config.channels * config.height * config.width, config.levels


def sees_itself(model: PixelCNN) -> None:
    """The mutant: mask B in the first layer."""
    first = model.stacks.layers[0].horizontal if model.config.gated else model.stacks.first
    above, behind, _ = first.padding
    first.mask_OIKL[:, :, above, behind] = True


@both
@every_output
def test_probabilities_sum_to_one(gated: bool, output: str, randomised: Any) -> None:
    model = randomised(build(gated=gated, position_bias=gated, **OUTPUTS[output]))
    assert total(model, *size(model)) == pytest.approx(1, abs=1e-9)
    sees_itself(model)
    assert abs(total(model, *size(model)) - 1) > 1e-7


@both
def test_probabilities_given_a_class_sum_to_one_and_differ(gated: bool, randomised: Any) -> None:
    model = randomised(build(gated=gated, classes=3, position_bias=True, **OUTPUTS["bernoulli"]))
    assert [total(model, 9, label=label) for label in range(3)] == pytest.approx([1, 1, 1], abs=1e-9)
    first, second = (model.log_prob(batch_of(all_states(9), label)) for label in (0, 1))
    assert float((first - second).abs().min()) > 1e-9


def reach(gated: bool, side: int, row: int, column: int, config: PixelCNNConfig) -> Tensor:
    """[side, side] which pixels a pixel can see, by following kernels back pixel by pixel."""
    kernels = [config.first_kernel // 2] + [config.kernel // 2] * config.num_layers
    seen = torch.zeros(side, side, dtype=torch.bool)

    def inside(i: int, j: int) -> bool:
        return 0 <= i < side and 0 <= j < side

    def steps(half: int, stack: str, first: bool) -> list[tuple[int, int, str]]:
        above = [(-i, j) for i in range(1, half + 1) for j in range(-half, half + 1)]
        own = [(0, -j) for j in range(1 if first else 0, half + 1)]
        if not gated:
            return [(*step, "one") for step in above + own]
        vertical = [(*step, "vertical") for step in above + [(0, j) for j in range(-half, half + 1) if not first]]
        return vertical if stack == "vertical" else vertical + [(*step, "horizontal") for step in own]

    places = {(row, column, "horizontal" if gated else "one")}
    for number, half in reversed(list(enumerate(kernels))):
        found = {
            (i + di, j + dj, to)
            for i, j, stack in places
            for di, dj, to in steps(half, stack, number == 0)
            if inside(i + di, j + dj)
        }
        places = found
    for i, j, _ in places:
        seen[i, j] = True
    return seen


@pytest.mark.parametrize(("gated", "count"), [(False, 83), (True, 93)])
def test_a_pixel_sees_no_later_one_and_earlier_ones_up_to_the_blind_spot(
    gated: bool, count: int, randomised: Any
) -> None:
    """Pixel (8, 5) of 11 x 11 comes after 93 others; 10 of them are to its right, further than kernels of 3 climb."""
    side, row, column = 11, 8, 5
    model = randomised(build(gated=gated, height=side, width=side, **{**SIZES, "num_layers": 7, "features": 32}))

    def support() -> Tensor:
        x_RCHW = torch.randn(1, 1, side, side, dtype=torch.float64, requires_grad=True)
        parameters_RPHW = model.parameters_of(x_RCHW, None)
        (slope,) = torch.autograd.grad(parameters_RPHW[0, :, row, column].sum(), x_RCHW)
        return slope[0, 0] != 0

    seen = support()
    earlier = torch.arange(side * side).view(side, side) < row * side + column
    assert not bool((seen & ~earlier).any())
    assert torch.equal(seen, reach(gated, side, row, column, model.config))
    assert int(seen.sum()) == count
    sees_itself(model)
    assert bool((support() & ~earlier).any())


class Recorded:
    """What a pixel's distribution was drawn from, call by call."""

    def __init__(self, model: PixelCNN, monkeypatch: pytest.MonkeyPatch) -> None:
        self.parameters: list[Tensor] = []
        draw = model.pixels.draw

        def recording(parameters: Tensor, values: Tensor, known: Tensor, group: int) -> Tensor:
            self.parameters.append(parameters.clone())
            return draw(parameters, values, known, group)

        monkeypatch.setattr(model.pixels, "draw", recording)


def difference_from_full_forward(model: PixelCNN, monkeypatch: pytest.MonkeyPatch) -> float:
    """The largest, over all parameters that a draw of a group may use."""
    with monkeypatch.context() as patch:
        recorded = Recorded(model, patch)
        labels_N = None if model.config.classes is None else torch.tensor([2, 0, 1])
        drawn_ND = model.sample(3) if labels_N is None else model.sample_of(labels_N)
    with torch.no_grad():
        full_NPHW = model.parameters_of(centred(drawn_ND.unflatten(1, model.config.shape)), labels_N)
    full_NPS, groups, worst = full_NPHW.flatten(2), model.pixels.num_groups, 0.0
    for call, parameters_NP in enumerate(recorded.parameters):
        pixel, group = divmod(call, groups)
        mine_P = model.pixels.groups <= group
        worst = max(worst, float((parameters_NP - full_NPS[:, :, pixel])[:, mine_P].abs().max()))
    assert len(recorded.parameters) == groups * full_NPS.shape[2]
    return worst


@both
@pytest.mark.parametrize("output", ["bernoulli", "two softmax", "three logistic"])
def test_cached_sampling_equals_the_full_forward(
    gated: bool, output: str, randomised: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {**OUTPUTS[output], "height": 5, "width": 6, "classes": 3, "position_bias": True, "first_kernel": 5}
    model = randomised(build(gated=gated, **settings))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.5)
    assert difference_from_full_forward(model, monkeypatch) < 1e-12
    monkeypatch.setattr(type(model.stacks), "keep", lambda self, x, cache: None)
    assert difference_from_full_forward(model, monkeypatch) > 1e-8, "a cache that never hears what was drawn"


@both
def test_each_layer_computes_each_pixel_once(gated: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(gated=gated, height=5, width=6)
    computed: dict[MaskedConvolution, int] = {}
    plain = MaskedConvolution.forward

    def counting(self: MaskedConvolution, x: Tensor, cache: ConvolutionCache | None = None) -> Tensor:
        out = plain(self, x, cache)
        computed[self] = computed.get(self, 0) + out.shape[2] * out.shape[3]
        return out

    monkeypatch.setattr(MaskedConvolution, "forward", counting)
    model.sample(2)
    assert set(computed.values()) == {30}
    assert len(computed) == sum(isinstance(module, MaskedConvolution) for module in model.modules())


@pytest.mark.parametrize(("gated", "output"), [(True, "bernoulli"), (False, "softmax"), (True, "three logistic")])
def test_samples_have_the_enumerated_probabilities(
    gated: bool, output: str, randomised: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = randomised(build(gated=gated, **OUTPUTS[output]))
    assert draws_fit(model, *size(model), count=20_000)
    monkeypatch.setattr(type(model.stacks), "keep", lambda self, x, cache: None)
    assert not draws_fit(model, *size(model), count=20_000)


def test_samples_of_a_class(randomised: Any) -> None:
    torch.manual_seed(0)
    model = randomised(build(classes=2, **OUTPUTS["bernoulli"]))
    with torch.no_grad():
        p_CS = torch.stack([model.log_prob(batch_of(all_states(9), label)).exp() for label in range(2)])
    counts_S = counts_of(model.sample_of(torch.full((10_000,), 1)))
    assert fits(counts_S, p_CS[1])
    assert not fits(counts_S, p_CS[0])


@pytest.mark.parametrize("output", ["bernoulli", "three logistic"])
def test_completions_have_the_conditional_probabilities(output: str, randomised: Any) -> None:
    """Also where some channels of a pixel are known: then a mixture's component must be drawn given those."""
    torch.manual_seed(0)
    model = randomised(build(**OUTPUTS[output]))
    num_values, num_levels = size(model)
    known = [True] * 4 + [False] * (num_values - 4)
    if output == "three logistic":  # channels first: of two pixels, the first and one channel of the second
        known = [True, True, True, False, True, False]
    state_D = all_states(num_values, num_levels)[num_levels ** (num_values - 2) + 3]
    assert completions_fit(model, known, state_D, num_levels, count=10_000)
    known[-1] = True
    assert not completions_fit(model, known, state_D, num_levels, count=10_000), "later values are not seen"


def test_channels_of_a_mixture_depend_on_each_other_as_the_paper_says(randomised: Any) -> None:
    """Equation 3 of PixelCNN++, one component and channel at a time."""
    model = randomised(build(**OUTPUTS["three logistic"]))
    pixels, p = model.pixels, torch.randn(20, dtype=torch.float64)
    assert len(p) == len(pixels.groups)
    for values in itertools.product([0.0, 0.5, 1.0], repeat=3):
        red, green, blue = (2 * value - 1 for value in values)
        terms = []
        for m in range(2):
            weight, mean, scale, k = p[m], p[2 + m : 8 : 2], p[8 + m : 14 : 2].exp(), p[14 + m :: 2].tanh()
            means = [mean[0], mean[1] + k[0] * red, mean[2] + k[1] * red + k[2] * green]
            chance = torch.ones((), dtype=torch.float64)
            for x, centre, s in zip((red, green, blue), means, scale, strict=True):
                upper = torch.ones(()) if x == 1 else ((x + 0.5 - centre) / s).sigmoid()
                lower = torch.zeros(()) if x == -1 else ((x - 0.5 - centre) / s).sigmoid()
                chance = chance * (upper - lower)
            terms.append((weight.exp() / p[:2].exp().sum()) * chance)
        found = pixels.log_prob(p, torch.tensor(values, dtype=torch.float64))
        torch.testing.assert_close(found, sum(terms).log(), rtol=0, atol=1e-9)


def test_a_mask_is_that_of_the_paper() -> None:
    """Figure 4 of PixelRNN: a 3 x 3 kernel, of which the last row is the pixel's own."""
    one = torch.zeros(1, dtype=torch.int64)
    mask_a = masked_convolution.causal_mask(one, one, (1, 1, 1), "before")
    mask_b = masked_convolution.causal_mask(one, one, (1, 1, 1), "with")
    assert mask_a[0, 0].int().tolist() == [[1, 1, 1], [1, 0, 0]]
    assert mask_b[0, 0].int().tolist() == [[1, 1, 1], [1, 1, 0]]
    groups = masked_convolution.groups_of(6, 3)
    assert groups.tolist() == [0, 0, 1, 1, 2, 2]
    centre = masked_convolution.causal_mask(torch.arange(3), torch.arange(3), (0, 0, 0), "before")[:, :, 0, 0]
    assert centre.int().tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0]]


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"levels=4 with output=bernoulli, which has 2; use output=softmax"):
        build(height=2, width=2, levels=4)
    with pytest.raises(ValidationError, match=r"kernel=4 has no middle; make it odd"):
        build(height=2, width=2, kernel=4)
    with pytest.raises(ValidationError, match=r"features=8 must be divisible by 6, twice the channels"):
        build(channels=3, height=2, width=2, features=8)
    for gated in (False, True):
        with pytest.raises(ValidationError, match=r"first_kernel=1 reads no pixel before its own; make it at least 3"):
            build(height=2, width=2, gated=gated, first_kernel=1)
    with pytest.raises(BadInput, match=r"value 0\.5: the model is of zeros and ones; make the data binary"):
        build(height=2, width=2).complete(torch.full((1, 4), 0.5), torch.ones(1, 4, dtype=torch.bool))
    model = build(height=2, width=2, output="softmax", levels=3)
    with pytest.raises(BadInput, match=r"values from 0 to 255: must lie from 0 to 1, where the 3 levels are; scale"):
        model.log_prob(batch_of(torch.tensor([[0.0, 255.0, 1.0, 0.5]])))
    with pytest.raises(BadInput, match=r"value 0\.5: the model is of zeros and ones; make the data binary"):
        build(height=2, width=2).log_prob(batch_of(torch.full((1, 4), 0.5)))


@both
@pytest.mark.parametrize("output", ["bernoulli", "three logistic"])
def test_operations_of_a_row(gated: bool, output: str) -> None:
    """As torch counts them."""
    model = build(gated=gated, classes=3, position_bias=True, **OUTPUTS[output])
    num_values, _ = size(model)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.log_prob(batch_of(torch.zeros(5, num_values)))
    assert counter.get_total_flops() == 5 * model.flops_per_count()


@both
def test_low_precision_keeps_levels_apart(gated: bool) -> None:
    model = build(gated=gated, height=3, width=3, output="logistic", levels=256).to(torch.bfloat16)
    levels_ND = model.sample(5) * 255
    assert torch.allclose(levels_ND, levels_ND.round(), rtol=0, atol=1e-3)
    known_ND = torch.arange(9).expand(5, -1) < 4
    completed_ND = model.complete(levels_ND.round() / 255, known_ND)
    assert torch.equal(completed_ND[known_ND], (levels_ND.round() / 255)[known_ND])


def test_both_kinds_have_stacks_of_their_own() -> None:
    assert isinstance(build(height=2, width=2, gated=False).stacks, MaskedStack)
    assert isinstance(build(height=2, width=2).stacks, GatedStacks)
    assert pixelcnn_stacks.gate(torch.ones(1, 4, 1, 1)).shape == (1, 2, 1, 1)
