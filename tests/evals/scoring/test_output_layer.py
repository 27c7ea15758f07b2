"""Scores of an output layer against log-softmax in float64: its bias, low precision, and logits of minus infinity."""

import numpy as np
import pytest
import torch
from torch import Tensor

from data_pipeline.config import BadInput
from evals.scoring.output_layer import LinearOutput, OutputLayer, WholeOutput, score_positions

VOCABULARY, WIDTH, POSITIONS = 37, 5, 11
PART_SIZES = (1, 4, 12, VOCABULARY)


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


HIDDEN_NW, WEIGHT_VW, BIAS_V = draw(POSITIONS, WIDTH, seed=1), draw(VOCABULARY, WIDTH, seed=2), draw(VOCABULARY, seed=3)
LABEL_N = np.arange(POSITIONS) * 3


def check(layer: OutputLayer, hidden_NW: Tensor, logits_NV: Tensor, error: float) -> None:
    """Any labels, and the likeliest, against float64 logits; `error` is relative to nats of at least one."""
    best_N = logits_NV.argmax(1).numpy()
    for label_N in (LABEL_N, best_N):
        wanted_N = -logits_NV.log_softmax(1)[torch.arange(POSITIONS), torch.from_numpy(label_N)]
        nats_N, greedy_N, without_N = score_positions(layer, hidden_NW, label_N, {})
        np.testing.assert_allclose(nats_N, wanted_N.numpy(), rtol=error, atol=error)
        assert greedy_N.tolist() == without_N.tolist() == (best_N == label_N).tolist()


def tokens_of_a_part(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr("evals.scoring.output_layer.LOGITS_OF_A_PART", {"cpu": size * POSITIONS})


@pytest.mark.parametrize("size", PART_SIZES)
def test_the_bias_is_added_in_every_part(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    tokens_of_a_part(monkeypatch, size)
    logits_NV = HIDDEN_NW @ WEIGHT_VW.T
    check(LinearOutput(WEIGHT_VW), HIDDEN_NW, logits_NV, 1e-12)
    check(LinearOutput(WEIGHT_VW, BIAS_V), HIDDEN_NW, logits_NV + BIAS_V, 1e-12)


@pytest.mark.parametrize("size", PART_SIZES)
def test_scales_and_soft_caps_are_of_the_whole_logit(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    tokens_of_a_part(monkeypatch, size)
    scaled_NV = 0.25 * (HIDDEN_NW @ WEIGHT_VW.T + BIAS_V)
    check(LinearOutput(WEIGHT_VW, BIAS_V, scale=0.25), HIDDEN_NW, scaled_NV, 1e-12)
    capped_NV = 0.5 * torch.tanh(scaled_NV / 0.5)
    check(LinearOutput(WEIGHT_VW, BIAS_V, scale=0.25, cap=0.5), HIDDEN_NW, capped_NV, 1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("size", PART_SIZES)
def test_the_sum_over_the_vocabulary_is_of_float32(
    monkeypatch: pytest.MonkeyPatch, size: int, dtype: torch.dtype
) -> None:
    """Weights are whole numbers, so that every logit is exact in any dtype: what is left is the error of summing as
    many float32 numbers as there are tokens."""
    tokens_of_a_part(monkeypatch, size)
    hidden_NW, weight_VW, bias_V = (torch.round(one).clamp(-2, 2) for one in (HIDDEN_NW, WEIGHT_VW, BIAS_V))
    logits_NV = hidden_NW @ weight_VW.T + bias_V
    error = VOCABULARY * torch.finfo(torch.float32).eps
    layer = LinearOutput(weight_VW.to(dtype), bias_V.to(dtype))
    check(layer, hidden_NW.to(dtype), logits_NV, error)
    assert {part.dtype for part in layer.parts(hidden_NW.to(dtype))} == {torch.float32}


@pytest.mark.parametrize("size", PART_SIZES)
@pytest.mark.parametrize("impossible", [slice(0, 4), slice(0, 20), slice(12, 24), slice(33, 37), slice(0, 36)])
def test_impossible_tokens_take_nothing(monkeypatch: pytest.MonkeyPatch, size: int, impossible: slice) -> None:
    """Of logits of minus infinity, by the bias; whole parts are, the first or a later one."""
    tokens_of_a_part(monkeypatch, size)
    bias_V = BIAS_V.clone()
    bias_V[impossible] = -torch.inf
    logits_NV = HIDDEN_NW @ WEIGHT_VW.T + bias_V
    check(LinearOutput(WEIGHT_VW, bias_V), HIDDEN_NW, logits_NV, 1e-12)
    check(WholeOutput(VOCABULARY, lambda hidden_NW: hidden_NW @ WEIGHT_VW.T + bias_V), HIDDEN_NW, logits_NV, 1e-12)


@pytest.mark.parametrize("size", PART_SIZES)
@pytest.mark.parametrize("barred", [range(1), range(4), range(20), range(36)])
def test_a_first_part_may_be_barred_whole(monkeypatch: pytest.MonkeyPatch, size: int, barred: range) -> None:
    """Each position's likeliest of the others is the one that is right, and no other token; nats know no bar."""
    tokens_of_a_part(monkeypatch, size)
    logits_NV = HIDDEN_NW @ WEIGHT_VW.T + BIAS_V
    left_NV = logits_NV.clone()
    left_NV[:, list(barred)] = -torch.inf
    layer, best_N = LinearOutput(WEIGHT_VW, BIAS_V), left_NV.argmax(1).numpy()
    bars = {place: frozenset(barred) for place in range(POSITIONS)}
    for label_N, right in ((best_N, True), (LABEL_N % len(barred), False)):
        nats_N, greedy_N, without_N = score_positions(layer, HIDDEN_NW, label_N, bars)
        wanted_N = -logits_NV.log_softmax(1)[torch.arange(POSITIONS), torch.from_numpy(label_N)]
        np.testing.assert_allclose(nats_N, wanted_N.numpy(), rtol=1e-12, atol=1e-12)
        assert greedy_N.tolist() == (logits_NV.argmax(1).numpy() == label_N).tolist()
        assert without_N.tolist() == [right] * POSITIONS


@pytest.mark.parametrize("label", [VOCABULARY, VOCABULARY + 1])
def test_a_label_that_is_no_token_is_refused_and_the_last_token_is_not(label: int) -> None:
    layer, hidden_1W = LinearOutput(WEIGHT_VW), HIDDEN_NW[:1]
    with pytest.raises(BadInput, match=f"token {label} is none of the model's {VOCABULARY}"):
        score_positions(layer, hidden_1W, np.array([label]), {})
    score_positions(layer, hidden_1W, np.array([VOCABULARY - 1]), {})
