"""Networks between rows and latents.

Shape legend: R rows, D values of a row (C channels, H height, W width of an image), K numbers for each, O outputs.
"""

import math
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from data_pipeline.config import BadInput, Config
from pretrain.layers.precision import to_dtype_of

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "silu": nn.SiLU}


class PerceptronConfig(Config):
    """Linear layers; with no hidden ones, one linear map."""

    kind: Literal["perceptron"]
    hidden_widths: tuple[int, ...]
    activation: Literal["relu", "tanh", "silu"] = "relu"

    def encoder(self, shape: tuple[int, ...], outputs: int) -> nn.Module:
        """[R, D] -> [R, O]."""
        return self._layers([math.prod(shape), *self.hidden_widths, outputs])

    def decoder(self, inputs: int, shape: tuple[int, ...], per_value: int) -> nn.Module:
        """[R, inputs] -> [R, D, K]."""
        layers = self._layers([inputs, *self.hidden_widths, math.prod(shape) * per_value])
        return nn.Sequential(*layers, nn.Unflatten(1, (math.prod(shape), per_value)))

    def _layers(self, widths: list[int]) -> nn.Sequential:
        layers: list[nn.Module] = []
        for width, following in pairwise(widths):
            layers += [nn.Linear(width, following), ACTIVATIONS[self.activation]()]
        return nn.Sequential(*layers[:-1])


class ConvolutionalConfig(Config):
    """4 x 4 convolutions of stride 2, each of which halves an image, and their transposes."""

    kind: Literal["convolutional"]
    channels: Annotated[tuple[int, ...], Field(min_length=1)]
    """After each halving."""
    activation: Literal["relu", "tanh", "silu"] = "relu"

    def encoder(self, shape: tuple[int, ...], outputs: int) -> nn.Module:
        """[R, D] -> [R, O]."""
        smallest = self._smallest(shape)
        layers: list[nn.Module] = [nn.Unflatten(1, shape)]
        for channels, following in pairwise((shape[0], *self.channels)):
            layers += [nn.Conv2d(channels, following, 4, stride=2, padding=1), ACTIVATIONS[self.activation]()]
        return nn.Sequential(*layers, nn.Flatten(1), nn.Linear(math.prod(smallest), outputs))

    def decoder(self, inputs: int, shape: tuple[int, ...], per_value: int) -> nn.Module:
        """[R, inputs] -> [R, D, K]."""
        smallest = self._smallest(shape)
        layers: list[nn.Module] = [nn.Linear(inputs, math.prod(smallest)), nn.Unflatten(1, smallest)]
        for channels, following in pairwise((*reversed(self.channels), shape[0] * per_value)):
            layers += [ACTIVATIONS[self.activation](), nn.ConvTranspose2d(channels, following, 4, stride=2, padding=1)]
        return nn.Sequential(*layers, NumbersLast(per_value))

    def _smallest(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
        """What the last halving leaves; BadInput for rows that cannot be halved so many times."""
        factor = 2 ** len(self.channels)
        if len(shape) != 3 or shape[1] % factor or shape[2] % factor:
            raise BadInput(
                f"model.row_shape is {list(shape)}: a convolutional network with {len(self.channels)} channels halves "
                f"height and width so many times, so they must be multiples of {factor} after a number of channels; "
                "choose fewer, or a perceptron"
            )
        return self.channels[-1], shape[1] // factor, shape[2] // factor


class NumbersLast(nn.Module):
    """[R, C K, H, W] -> [R, C H W, K]."""

    def __init__(self, per_value: int) -> None:
        super().__init__()
        self.per_value = per_value

    def forward(self, x: Tensor) -> Tensor:
        return x.unflatten(1, (-1, self.per_value)).movedim(2, -1).flatten(1, 3)


NetworkConfig = Annotated[PerceptronConfig | ConvolutionalConfig, Field(discriminator="kind")]


def compute(network: nn.Module, x: Tensor) -> Tensor:
    """network(x) in the dtype of its weights."""
    out: Tensor = network(to_dtype_of(network, x))
    return out


def flops_of(network: nn.Module) -> float:
    """Floating-point operations of a row in matrix products, of a network that a configuration above has built."""
    total, places = 0.0, 1
    for module in network.modules():
        if isinstance(module, nn.Unflatten) and len(module.unflattened_size) == 3:
            places = math.prod(module.unflattened_size[1:])
        elif isinstance(module, nn.Conv2d):
            places //= 4
            total += 2.0 * places * module.weight.numel()
        elif isinstance(module, nn.ConvTranspose2d):
            total += 2.0 * places * module.weight.numel()
            places *= 4
        elif isinstance(module, nn.Linear):
            total += 2.0 * module.weight.numel()
    return total
