"""MADEs of nine binary values: exact by enumeration, for any masks, orders and classes."""

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from data_pipeline.config import BadInput
from pretrain.contract import exact_log_prob
from pretrain.layers import masked_linear
from pretrain.models.autoregressive import made
from pretrain.models.autoregressive.made import MADE, MADEConfig
from tests.pretrain.models.autoregressive.exact import (
    all_states,
    batch_of,
    completions_fit,
    counts_of,
    draws_fit,
    fits,
    total,
)

VALUES = 9
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "deep": {"hidden_widths": (12, 7, 11), "direct": True},
    "drawn": {"order": "drawn", "mask_seed": 3, "direct": True},
    "mixture": {"num_masks": 4, "order": "drawn"},
    "classes": {"classes": 3, "num_masks": 2},
}
every_kind = pytest.mark.parametrize("name", KINDS)


def build(**settings: Any) -> MADE:
    return MADEConfig(kind="made", **{"num_values": VALUES, "hidden_widths": (12,), **settings}).build()


def at_least(degree_O: Tensor, degree_I: Tensor) -> Tensor:
    """The mutant: the output mask with >=, by which each value sees itself."""
    return degree_O[:, None] >= degree_I


@every_kind
def test_probabilities_sum_to_one(name: str, randomised: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = randomised(build(**KINDS[name]))
    for label in range(model.config.classes or 1):
        assert total(model, VALUES, label=label) == pytest.approx(1, abs=1e-9)
    monkeypatch.setattr(made, "output_mask", at_least)
    assert abs(total(model, VALUES) - 1) > 1e-7


@every_kind
def test_a_conditional_sees_all_that_comes_before_and_nothing_else(name: str, randomised: Any) -> None:
    """Wide layers, so that no connection is missing by chance."""
    model = randomised(build(**{**KINDS[name], "hidden_widths": (200,)}))
    labels_R = torch.zeros(1, dtype=torch.int64)
    for mask in range(model.config.num_masks):
        x_RD = torch.rand(1, VALUES, dtype=torch.float64)
        slope_DD = torch.autograd.functional.jacobian(lambda x, mask=mask: model.logits(x, labels_R, mask)[0], x_RD)
        place_D = model._degrees_of(0, mask)
        assert torch.equal(slope_DD[:, 0] != 0, place_D[:, None] > place_D)


def test_orders_and_masks_are_functions_of_the_seed() -> None:
    same, other = build(order="drawn", num_masks=3), build(order="drawn", num_masks=3, mask_seed=1)
    again = build(order="drawn", num_masks=3)
    for layer in range(2):
        assert torch.equal(getattr(same, f"degrees_{layer}"), getattr(again, f"degrees_{layer}"))
        assert not torch.equal(getattr(same, f"degrees_{layer}"), getattr(other, f"degrees_{layer}"))
        assert len(getattr(same, f"degrees_{layer}").unique(dim=0)) == 3
    assert torch.equal(same.degrees_0.sort(-1).values, torch.arange(1, VALUES + 1).expand(3, -1))
    assert torch.equal(build().degrees_0[0], torch.arange(1, VALUES + 1))
    assert not [name for name in same.state_dict() if "degrees" in name], "masks come from the config"


def test_degrees_do_not_fall_below_the_layer_before() -> None:
    layers = masked_linear.hidden_degrees((3, 200, 4, 300), 50, 0)
    for before, layer in pairwise(layers):
        assert layer.min() >= before.min()
    assert all(layer.min() >= 1 and layer.max() <= 49 for layer in layers)
    assert set(layers[1]) == set(range(layers[0].min(), 50)), "every degree that may be drawn is"


@pytest.mark.parametrize("name", ["drawn", "mixture"])
def test_samples_have_the_enumerated_probabilities(name: str, randomised: Any) -> None:
    torch.manual_seed(0)
    model = randomised(build(**KINDS[name]))
    assert draws_fit(model, VALUES)
    with torch.no_grad():
        model.layers[1].bias[4] += 0.1
        other = randomised(build(**KINDS[name])).log_prob(batch_of(all_states(VALUES))).exp()
    assert not fits(counts_of(model.sample(50_000)), other)


def forgets_what_is_known(self: MADE, values_ND: Tensor, known_ND: Tensor, labels_N: Tensor | None) -> Tensor:
    return torch.randint(self.config.num_masks, (len(values_ND),))


def test_completions_have_the_conditional_probabilities(randomised: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a mixture, too: its masks must be drawn given what is known."""
    torch.manual_seed(0)
    model = randomised(build(num_masks=3, hidden_widths=(20,)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    state_D = torch.tensor([1, 0, 0, 1, 1, 0, 0, 0, 0], dtype=torch.float64)
    known = [True] * 5 + [False] * 4
    assert completions_fit(model, known, state_D)
    monkeypatch.setattr(MADE, "_choose_masks", forgets_what_is_known)
    assert not completions_fit(model, known, state_D)


def test_samples_of_a_class(randomised: Any) -> None:
    torch.manual_seed(0)
    model = randomised(build(classes=3))
    states_SD = all_states(VALUES)
    with torch.no_grad():
        p_CS = torch.stack([model.log_prob(batch_of(states_SD, label)).exp() for label in range(3)])
    counts_S = counts_of(model.sample_of(torch.full((50_000,), 2)))
    assert fits(counts_S, p_CS[2])
    assert not fits(counts_S, p_CS[1])
    assert fits(counts_of(model.sample(50_000)), p_CS.mean(0)), "without a class, of all evenly"


class LabelsOfOtherRows(MADE):
    """The mutant: the rows of a mask are told the labels of the first rows."""

    def _draw_under(self, mask: int, x_ND: Tensor, known_ND: Tensor, labels_N: Tensor | None) -> Tensor:
        return super()._draw_under(mask, x_ND, known_ND, self.told[: len(x_ND)])

    def draw(self, values_ND: Tensor, known_ND: Tensor, labels_N: Tensor | None) -> Tensor:
        self.told = labels_N
        return super().draw(values_ND, known_ND, labels_N)


@pytest.mark.parametrize("kind", [MADE, LabelsOfOtherRows])
def test_with_several_masks_each_row_is_of_its_own_class(kind: type[MADE], randomised: Any) -> None:
    """Labels in turns, so that every mask has rows of both, in no order."""
    torch.manual_seed(0)
    model = randomised(kind(build(classes=2, num_masks=3, order="drawn").config))
    labels_N = torch.arange(40_000) * 2 // 40_000
    with torch.no_grad():
        for table in model.classes:
            table.weight.mul_(3)
        p_CS = torch.stack([model.log_prob(batch_of(all_states(VALUES), label)).exp() for label in range(2)])
    drawn_ND = model.sample_of(labels_N)
    right = [fits(counts_of(drawn_ND[labels_N == label]), p_CS[label]) for label in range(2)]
    known_ND = torch.zeros(40_000, VALUES, dtype=torch.bool)
    known_ND[:, model._degrees_of(0, 0).argsort()[0]] = True
    completed_ND = model.complete(drawn_ND, known_ND, labels_N)
    assert torch.equal(completed_ND[known_ND], drawn_ND[known_ND])
    assert all(right) == (kind is MADE)


@torch.no_grad()
def test_a_class_is_told_to_every_layer(randomised: Any) -> None:
    """Equations 8 to 10 with the masks of 12 and 13, unit by unit, and a vector of the class in each layer."""
    model, label, mask = randomised(build(classes=3, num_masks=2, hidden_widths=(7, 8), direct=True)), 2, 1
    x_D = torch.bernoulli(torch.full((VALUES,), 0.5, dtype=torch.float64))
    degrees = [model._degrees_of(number, mask).tolist() for number in range(3)]
    h = x_D.tolist()
    for number, layer in enumerate(model.layers):
        last = number == 2
        out_degrees = degrees[0] if last else degrees[number + 1]
        following = []
        for o, degree in enumerate(out_degrees):
            a = float(layer.bias[o]) + float(model.classes[number].weight[label, o])
            for i, below in enumerate(degrees[number]):
                if degree > below or (degree == below and not last):
                    a += float(layer.weight[o, i]) * h[i]
            if last:
                a += sum(float(model.direct.weight[o, i] * x_D[i]) for i in range(VALUES) if degree > degrees[0][i])
            following.append(a if last else max(a, 0.0))
        h = following
    wanted_D = torch.tensor(h, dtype=torch.float64)

    def error() -> float:
        found_RD = model.logits(x_D[None], torch.tensor([label]), mask)
        return float((found_RD[0] - wanted_D).abs().max())

    assert error() < 1e-9
    for table in model.classes[:-1]:
        table.weight.zero_()
    assert error() > 1e-6, "classes in the last layer only"


@every_kind
def test_operations_of_a_row(name: str) -> None:
    """As torch counts them: no biases, no tables; of one mask, as a step is trained."""
    model, rows = build(**KINDS[name]).train(), 3
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(batch_of(torch.zeros(rows, VALUES)), None, player="model", step=0)
    assert counter.get_total_flops() == rows * model.flops_per_count()


def test_low_precision_draws_are_bits() -> None:
    model = build(num_masks=2, direct=True).to(torch.bfloat16)
    completed_ND = model.complete(torch.ones(5, VALUES), torch.arange(VALUES).expand(5, -1) < 3)
    assert completed_ND.dtype == torch.float32
    assert set(completed_ND.unique().tolist()) <= {0.0, 1.0}


def test_a_step_trains_its_mask_and_a_score_is_the_mixture(randomised: Any) -> None:
    model = randomised(build(num_masks=3))
    batch = batch_of(all_states(VALUES)[5:9])
    each = []
    for mask in range(3):
        logits_RD = model.logits(batch.values, None, mask)
        each.append(torch.where(batch.values == 1, logits_RD, -logits_RD).sigmoid().log().sum(-1))
    model.train()
    for step in range(6):
        loss = model(batch, None, player="model", step=step)
        assert float(loss.total) == pytest.approx(-float(each[step % 3].sum()), abs=1e-9)
        assert loss.count == 4
    mixture_R = torch.stack(each).exp().mean(0).log()
    torch.testing.assert_close(exact_log_prob(model, batch), mixture_R, rtol=0, atol=1e-9)
    model.eval()
    assert float(model(batch, None, player="model", step=1).total) == pytest.approx(-float(mixture_R.sum()), abs=1e-9)


def test_what_cannot_be_read_is_refused() -> None:
    model = build(classes=3)
    with pytest.raises(BadInput, match=r"value 0\.5: the model is of zeros and ones; make the data binary"):
        model.log_prob(batch_of(torch.full((2, VALUES), 0.5)))
    for label in (-100, 3):
        with pytest.raises(BadInput, match=rf"label {label}: model.classes 3 makes the classes 0 .. 2"):
            model.log_prob(batch_of(torch.zeros(2, VALUES), label))
    with pytest.raises(BadInput, match=r"value 0\.5: the model is of zeros and ones; make the data binary"):
        model.complete(torch.full((2, VALUES), 0.5), torch.ones(2, VALUES, dtype=torch.bool))
    with pytest.raises(ValidationError, match=r"hidden_widths\.1\n  Input should be greater than 0"):
        build(hidden_widths=(3, 0))
    with pytest.raises(BadInput, match=r"MADE: was trained without classes; set model.classes"):
        build().sample_of(torch.tensor([1]))


def test_one_value_is_a_coin(randomised: Any) -> None:
    model = randomised(build(num_values=1))
    chance = float(model.layers[-1].bias.sigmoid())
    log_prob_R = model.log_prob(batch_of(all_states(1)))
    assert log_prob_R.tolist() == pytest.approx([math.log(1 - chance), math.log(chance)], abs=1e-9)
