"""Convolutional networks that halve or double an image: from rows of pixels to a vector, and back.

Convolutions of 4 x 4 with stride 2, without normalisation (Radford et al. 2016, https://arxiv.org/abs/1511.06434, table
of guidelines, less batch normalisation, which would tie the rows of a batch together).

Shape legend: R rows, C channels, H height, W width, D = C H W pixels, O outputs, Z inputs.
"""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from pretrain.layers.perceptron import Activation, activation_of


def halving_convolutions(
    shape: Sequence[int], channels: Sequence[int], outputs: int, activation: Activation
) -> nn.Sequential:
    """[R, D] -> [R, O]: one convolution for each of `channels`, each halving height and width, then a linear layer."""
    image, *_ = shape
    layers: list[nn.Module] = [nn.Unflatten(1, tuple(shape))]
    for width, following in pairwise((image, *channels)):
        layers += [nn.Conv2d(width, following, kernel_size=4, stride=2, padding=1), activation_of(activation)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(_smallest(shape, channels), outputs))


def doubling_convolutions(
    inputs: int, channels: Sequence[int], shape: Sequence[int], activation: Activation
) -> nn.Sequential:
    """[R, Z] -> [R, D]: the way back, through `channels` from their last to their first."""
    image, height, width = shape
    start = (channels[-1], height >> len(channels), width >> len(channels))
    layers: list[nn.Module] = [nn.Linear(inputs, _smallest(shape, channels)), nn.Unflatten(1, start)]
    for wide, following in pairwise((*reversed(channels), image)):
        layers += [activation_of(activation), nn.ConvTranspose2d(wide, following, kernel_size=4, stride=2, padding=1)]
    return nn.Sequential(*layers, nn.Flatten())


def _smallest(shape: Sequence[int], channels: Sequence[int]) -> int:
    _, height, width = shape
    return channels[-1] * (height >> len(channels)) * (width >> len(channels))
