"""Optimizers: their steps by hand, in float64, and what is said of settings that there are not."""

from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from torch import nn

from data_pipeline.config import BadInput
from pretrain import config
from pretrain.experiment import Experiment
from pretrain.optim import AdamWConfig, OptimizerConfig, SGDConfig


def read(**values: Any) -> Any:
    return TypeAdapter(OptimizerConfig).validate_python(values)


def tiny(*overrides: str) -> Experiment:
    return config.load(Experiment, config.recipe_path("tiny_gan"), overrides)


def message(*overrides: str) -> str:
    with pytest.raises(BadInput) as caught:
        tiny(*overrides)
    return str(caught.value)


def test_an_optimizer_without_a_kind_is_adamw() -> None:
    assert read(learning_rate=0.1) == AdamWConfig(learning_rate=0.1)
    assert read(kind="sgd", learning_rate=0.1) == SGDConfig(kind="sgd", learning_rate=0.1, gradient_clip=None)


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_gradient_descent_by_hand(decay: float) -> None:
    """w - rate (gradient + decay w), the decay on matrices alone; nothing is remembered."""
    matrix, bias = (nn.Parameter(torch.randn(shape, dtype=torch.float64)) for shape in ((3, 2), (3,)))
    optimizer = SGDConfig(kind="sgd", learning_rate=0.1, weight_decay=decay).build([matrix, bias])
    for rate in (0.1, 0.03, 1.0):
        before, gradients = [p.detach().clone() for p in (matrix, bias)], []
        for group in optimizer.param_groups:
            group["lr"] = rate
        for parameter in (matrix, bias):
            parameter.grad = torch.randn_like(parameter)
            gradients.append(parameter.grad.clone())
        optimizer.step()
        for now, was, gradient, pull in zip((matrix, bias), before, gradients, (decay, 0.0), strict=True):
            assert torch.allclose(now, was - rate * (gradient + pull * was), rtol=0, atol=1e-14)
    assert not any(optimizer.state.values())
    assert SGDConfig.moments == ()


def test_moments_are_what_torch_keeps() -> None:
    weight = nn.Parameter(torch.ones(2, 2))
    optimizer = AdamWConfig(learning_rate=0.1).build([weight])
    weight.grad = torch.ones(2, 2)
    optimizer.step()
    assert set(optimizer.state[weight]) == {"step", *AdamWConfig.moments}


def test_another_kind_takes_the_keys_that_it_has() -> None:
    assert tiny("optimizer.kind=sgd").optimizer == SGDConfig(kind="sgd", learning_rate=0.003)
    player = tiny("player_optimizers.generator.kind=sgd").player_optimizers["generator"]
    assert player == SGDConfig(kind="sgd", learning_rate=0.003)


def test_what_is_wrong_is_named() -> None:
    assert message("optimizer.kind=sdg") == (
        "override 'optimizer.kind=sdg': optimizer.kind: must be one of 'adamw', 'sgd', but it is 'sdg'"
    )
    of_player = "player_optimizers.generator"
    assert f"{of_player}.kind: must be one of 'adamw', 'sgd', but it is 'adam'" in message(f"{of_player}.kind=adam")
    said = message(f"{of_player}.learning_rat=1")
    assert said.endswith(f"{of_player}.learning_rat: there is no such key; did you mean 'learning_rate'?")
    said = message("optimizer.kind=sgd", "optimizer.betas=[0.9, 0.99]")
    assert "optimizer.betas: there is no such key; there are gradient_clip, kind, learning_rate, weight_decay" in said
    assert "optimizer.learning_rate: Input should be greater than 0" in message("optimizer.learning_rate=0")
