"""Networks from rows to vectors and back, as a recipe chooses them: perceptrons, or convolutions of images.

Shape legend: R rows, D values of a row, O outputs, Z inputs.
"""

import math
from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveInt
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from data_pipeline.config import Config
from pretrain.layers.convolution import doubling_convolutions, halving_convolutions
from pretrain.layers.perceptron import Activation, perceptron


class PerceptronConfig(Config):
    """Linear layers; it does not care for the shape of a row."""

    kind: Literal["perceptron"]
    widths: tuple[PositiveInt, ...]
    """Of the hidden layers, from input to output; none: one linear layer."""
    activation: Activation = "leaky_relu"

    def problem(self, shape: Sequence[int]) -> str | None:
        """None: it reads and writes rows of any shape."""
        return None

    def reader(self, shape: Sequence[int], outputs: int) -> nn.Sequential:
        """[R, D] -> [R, O]."""
        return perceptron((math.prod(shape), *self.widths, outputs), self.activation)

    def writer(self, inputs: int, shape: Sequence[int]) -> nn.Sequential:
        """[R, Z] -> [R, D]."""
        return perceptron((inputs, *self.widths, math.prod(shape)), self.activation)


class ConvolutionalConfig(Config):
    """Convolutions with stride 2 between the image and a vector."""

    kind: Literal["convolutional"]
    channels: tuple[PositiveInt, ...] = Field(min_length=1)
    """From the image to the vector; a network that writes images goes through them backwards."""
    activation: Activation = "leaky_relu"

    def problem(self, shape: Sequence[int]) -> str | None:
        """Why it cannot read rows of this shape, and what to do, or None."""
        times = 2 ** len(self.channels)
        if len(shape) == 3 and all(size % times == 0 for size in shape[1:]):
            return None
        return (
            f"rows of shape {list(shape)} cannot be halved {len(self.channels)} times by convolutions: they must be "
            f"images [channels, height, width] with sides divisible by {times}; use fewer channels, or a perceptron"
        )

    def reader(self, shape: Sequence[int], outputs: int) -> nn.Sequential:
        """[R, D] -> [R, O]."""
        return halving_convolutions(shape, self.channels, outputs, self.activation)

    def writer(self, inputs: int, shape: Sequence[int]) -> nn.Sequential:
        """[R, Z] -> [R, D]."""
        return doubling_convolutions(inputs, self.channels, shape, self.activation)


NetworkConfig = Annotated[PerceptronConfig | ConvolutionalConfig, Field(discriminator="kind")]
"""Chosen by `kind`."""


def flops_of_row(network: Callable[[], nn.Module], width: int) -> float:
    """Floating-point operations of the network that is built, on one row of that width: matrix products alone."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        network()(torch.empty(1, width))
    return float(counter.get_total_flops())
