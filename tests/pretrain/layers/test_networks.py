"""Networks that a recipe chooses: their shapes, and that both ways of an image keep to its places.

Shape legend: R rows, C channels, H height, W width.
"""

import math

import pytest
import torch
from torch import nn

from pretrain.layers.frozen import frozen
from pretrain.layers.networks import ConvolutionalConfig, PerceptronConfig, flops_of_row

PERCEPTRON = PerceptronConfig(kind="perceptron", widths=(7, 5))
CONVOLUTIONAL = ConvolutionalConfig(kind="convolutional", channels=(3, 6))
SHAPE = (2, 8, 12)


@pytest.mark.parametrize("network", [PERCEPTRON, CONVOLUTIONAL])
def test_shapes(network: PerceptronConfig | ConvolutionalConfig) -> None:
    width = math.prod(SHAPE)
    assert network.reader(SHAPE, 4)(torch.rand(3, width)).shape == (3, 4)
    assert network.writer(4, SHAPE)(torch.rand(3, 4)).shape == (3, width)


def test_a_perceptron_without_hidden_layers_is_linear() -> None:
    (layer,) = PerceptronConfig(kind="perceptron", widths=()).reader((3,), 2)
    assert isinstance(layer, nn.Linear)
    assert layer.weight.shape == (2, 3)


def seen_by_the_first_convolution(place: int) -> list[list[int]]:
    """Height and width of what a pixel reaches after the first convolution."""
    first = CONVOLUTIONAL.reader(SHAPE, 4)[:2]
    pixels = torch.zeros(1, math.prod(SHAPE), requires_grad=True)
    slope = torch.autograd.functional.jacobian(lambda x: first(x).sum(1), pixels)[0, :, :, 0, place]
    return slope.nonzero().tolist()


def test_pixels_are_read_row_by_row() -> None:
    """Height 5, width 2 of the second channel lies in the windows at heights 2, 3 and widths 0, 1 alone."""
    place = 1 * 8 * 12 + 5 * 12 + 2
    assert seen_by_the_first_convolution(place) == [[2, 0], [2, 1], [3, 0], [3, 1]]
    assert seen_by_the_first_convolution(2 * 8 + 5) != [[2, 0], [2, 1], [3, 0], [3, 1]]


def test_operations_are_counted() -> None:
    assert flops_of_row(lambda: PERCEPTRON.reader((4,), 1), 4) == 2 * (4 * 7 + 7 * 5 + 5)
    convolutions = 16 * (2 * 3 * 4 * 6 + 3 * 6 * 2 * 3)
    linear = 6 * 2 * 3 * 4
    assert flops_of_row(lambda: CONVOLUTIONAL.reader(SHAPE, 4), math.prod(SHAPE)) == 2 * (convolutions + linear)


def test_frozen_networks_pass_gradients_on() -> None:
    network, x_RD = PERCEPTRON.reader((4,), 1), torch.rand(3, 4, requires_grad=True)
    made = frozen(network, x_RD)
    assert torch.equal(made, network(x_RD))
    (slope,) = torch.autograd.grad(network(x_RD).sum(), x_RD)
    made.sum().backward()
    assert torch.equal(x_RD.grad, slope)
    assert all(p.grad is None for p in network.parameters())
