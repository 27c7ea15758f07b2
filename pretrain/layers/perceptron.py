"""Perceptrons: linear layers with one nonlinearity between them."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from torch import nn

Activation = Literal["leaky_relu", "relu", "silu", "tanh"]
"""Leaky ReLU has slope 0.2 below zero, as in DCGAN (Radford et al. 2016, https://arxiv.org/abs/1511.06434)."""


def activation_of(name: Activation) -> nn.Module:
    """A fresh layer of that nonlinearity."""
    layers: dict[Activation, nn.Module] = {
        "leaky_relu": nn.LeakyReLU(0.2),
        "relu": nn.ReLU(),
        "silu": nn.SiLU(),
        "tanh": nn.Tanh(),
    }
    return layers[name]


def perceptron(widths: Sequence[int], activation: Activation = "leaky_relu") -> nn.Sequential:
    """Linear layers through these widths, the first that of the input, the last that of the output; both are linear."""
    layers: list[nn.Module] = []
    for width, following in pairwise(widths):
        layers += [nn.Linear(width, following), activation_of(activation)]
    return nn.Sequential(*layers[:-1])
