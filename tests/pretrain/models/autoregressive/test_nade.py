"""NADEs of nine binary values: exact by enumeration, and equal to their equations value by value."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from data_pipeline.config import BadInput
from pretrain.models.autoregressive import nade, nade_logits
from pretrain.models.autoregressive.nade import NADE, NADEConfig
from tests.pretrain.models.autoregressive.exact import (
    all_states,
    batch_of,
    completions_fit,
    counts_of,
    draws_fit,
    fits,
    total,
)

AT_LEAST_FLOAT32 = nade.at_least_float32
VALUES = 9
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "drawn": {"order": "drawn", "order_seed": 2},
    "classes": {"classes": 3, "order": "drawn"},
}
every_kind = pytest.mark.parametrize("name", KINDS)


def build(kind: type[NADE] = NADE, **settings: Any) -> NADE:
    return kind(NADEConfig(kind="nade", **{"num_values": VALUES, "num_hidden": 6, **settings}))


class Leaky(NADE):
    """The mutant: a_d includes x_d."""

    def logits(self, x_RD: Tensor, labels_R: Tensor | None) -> Tensor:
        before_RDH = (x_RD[:, :, None] * self.weight_DH).cumsum(1)
        hidden_RDH = (before_RDH + self._start(labels_R)[:, None]).sigmoid()
        return (hidden_RDH * self.output_weight_DH).sum(-1) + self.output_bias_D


class ForgetsOne(NADE):
    """The mutant: a draw that never adds the last but one value to a."""

    def draw(self, values_ND: Tensor, known_ND: Tensor, labels_N: Tensor | None) -> Tensor:
        kept = self.weight_DH[VALUES - 2].clone()
        with torch.no_grad():
            self.weight_DH[VALUES - 2] = 0
            drawn_ND = super().draw(values_ND, known_ND, labels_N)
            self.weight_DH[VALUES - 2] = kept
        return drawn_ND


@every_kind
def test_probabilities_sum_to_one(name: str, randomised: Any) -> None:
    model = randomised(build(**KINDS[name]))
    for label in range(model.config.classes or 1):
        assert total(model, VALUES, label=label) == pytest.approx(1, abs=1e-9)
    assert abs(total(randomised(build(Leaky, **KINDS[name])), VALUES) - 1) > 1e-7


@every_kind
def test_conditionals_are_the_equations_one_value_at_a_time(name: str, randomised: Any) -> None:
    model = randomised(build(**KINDS[name]))
    x_D, label = torch.bernoulli(torch.full((VALUES,), 0.5, dtype=torch.float64)), 1
    c_H = model.hidden_bias_H + (0 if model.classes is None else model.classes.weight[label])
    log_prob = torch.zeros((), dtype=torch.float64)
    for place, value in enumerate(model.order_D):
        earlier = sum((x_D[model.order_D[j]] * model.weight_DH[j] for j in range(place)), torch.zeros_like(c_H))
        chance = (model.output_bias_D[place] + model.output_weight_DH[place] @ (c_H + earlier).sigmoid()).sigmoid()
        log_prob = log_prob + (chance if x_D[value] == 1 else 1 - chance).log()
    torch.testing.assert_close(model.log_prob(batch_of(x_D[None], label))[0], log_prob, rtol=0, atol=1e-9)
    model.classes = None
    with torch.no_grad():
        model.hidden_bias_H += 0.1
    assert float((model.log_prob(batch_of(x_D[None], label))[0] - log_prob).abs()) > 1e-8


def test_samples_have_the_enumerated_probabilities(randomised: Any) -> None:
    torch.manual_seed(0)
    settings = {"order": "drawn", "order_seed": 2}
    model, mutant = randomised(build(**settings)), randomised(build(ForgetsOne, **settings))
    with torch.no_grad():
        for parameter in (*model.parameters(), *mutant.parameters()):
            parameter.mul_(3)
    assert draws_fit(model, VALUES)
    assert not draws_fit(mutant, VALUES)


def test_samples_of_a_class(randomised: Any) -> None:
    torch.manual_seed(0)
    model = randomised(build(classes=3))
    with torch.no_grad():
        model.classes.weight.mul_(4)
        p_CS = torch.stack([model.log_prob(batch_of(all_states(VALUES), label)).exp() for label in range(3)])
    counts_S = counts_of(model.sample_of(torch.full((50_000,), 2)))
    assert fits(counts_S, p_CS[2])
    assert not fits(counts_S, p_CS[1])


def test_completions_have_the_conditional_probabilities(randomised: Any) -> None:
    torch.manual_seed(0)
    model = randomised(build(order="drawn", order_seed=5))
    known_D = torch.zeros(VALUES, dtype=torch.bool)
    known_D[model.order_D[:5]] = True
    state_D = torch.bernoulli(torch.full((VALUES,), 0.5, dtype=torch.float64))
    assert completions_fit(model, known_D.tolist(), state_D)
    with torch.no_grad():
        model.weight_DH[2] += 3 * state_D[model.order_D[2]] + 0.5
        known_D[model.order_D[-1]], known_D[model.order_D[2]] = True, False
    assert not completions_fit(model, known_D.tolist(), state_D), "what is known later says nothing: as documented"


def test_what_cannot_be_read_is_refused() -> None:
    with pytest.raises(BadInput, match=r"value 0\.5: the model is of zeros and ones; make the data binary"):
        build().log_prob(batch_of(torch.full((2, VALUES), 0.5)))


def low_precision_errors() -> tuple[float, float]:
    """Of logits, and of the chances that draws are made with, for weights that bfloat16 has rounded."""
    torch.manual_seed(0)
    model = build(classes=2, num_hidden=200, initial_std=1.0).to(torch.bfloat16)
    plain = build(classes=2, num_hidden=200)
    plain.load_state_dict(model.state_dict())
    x_RD, labels_R, chances = all_states(VALUES).float(), torch.arange(2**VALUES) % 2, []
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        logits_RD = plain.logits(x_RD, labels_R)
        found_RD = model.logits(x_RD.to(torch.bfloat16), labels_R)
        patch.setattr(nade, "at_least_float32", AT_LEAST_FLOAT32)
        patch.setattr(torch, "bernoulli", lambda chance: (chances.append(chance.float()), torch.zeros_like(chance))[1])
        model.complete(x_RD, torch.ones_like(x_RD), labels_R)
    drawn_RD = torch.stack(chances, 1)
    return tuple(float(one.abs().max()) for one in (found_RD - logits_RD, drawn_RD - logits_RD.sigmoid()))


def test_low_precision_weights_add_up_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    assert max(low_precision_errors()) < 1e-4
    model = build().to(torch.bfloat16)
    assert model.log_prob(batch_of(all_states(VALUES).float())).dtype == torch.float32
    assert set(model.sample(4).unique().tolist()) <= {0.0, 1.0}
    monkeypatch.setattr(nade, "at_least_float32", lambda x: x)
    assert low_precision_errors()[0] > 1e-2, "without the cast, sums are those of bfloat16"


@pytest.mark.parametrize("label", [None, 1])
def test_a_known_value_that_is_no_bit_is_refused(label: int | None) -> None:
    values_ND, labels_N = torch.full((2, VALUES), 0.5), None if label is None else torch.full((2,), label)
    model, known_ND = build(classes=None if label is None else 3), torch.zeros(2, VALUES, dtype=torch.bool)
    assert set(model.complete(values_ND, known_ND, labels_N).unique().tolist()) <= {0.0, 1.0}
    known_ND[1, 3] = True
    with pytest.raises(BadInput, match=r"value 0\.5: the model is of zeros and ones; make the data binary"):
        model.complete(values_ND, known_ND, labels_N)


def test_operations_of_a_row() -> None:
    """As torch counts them, but for the sums within a block, which the equations have once."""
    model, rows = build(num_values=40, classes=3), 3
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.log_prob(batch_of(torch.zeros(rows, 40)))
    sizes = [len(range(40)[places]) for places in nade_logits._blocks(torch.zeros(rows, 40), torch.zeros(rows, 6))]
    assert max(sizes) > 1
    repeated = sum(2 * size**2 * 6 for size in sizes)
    assert counter.get_total_flops() == rows * (model.flops_per_count() + repeated)
