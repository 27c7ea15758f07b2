"""PixelCNN: convolutions over an image that see only the pixels above, and those to the left in the pixel's own row.

van den Oord et al. 2016a (https://arxiv.org/abs/1601.06759) for the masked one, 2016b (https://arxiv.org/abs/1606.05328)
for the gated one and its conditions; Salimans et al. 2017 (https://arxiv.org/abs/1701.05517) for mixtures of logistics.
p(x) = prod_pixels p(pixel given all before it), row by row, and within a pixel channel by channel. The layers are in
`pixelcnn_stacks.py`, the distributions of a pixel in `pretrain/distributions/pixels.py`.

A sample computes each layer once for each pixel (or row, in the vertical stack), from the inputs that it kept.

Shape legend: R rows, N samples, D values of a row, C channels, H height, W width, F features, P parameters of a pixel.
"""

from typing import ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional as F

from data_pipeline.batch import VectorBatch
from pretrain.distributions.bernoulli import check_binary
from pretrain.distributions.categorical import level_of
from pretrain.distributions.pixels import BernoulliPixels, LogisticPixels, PixelDistribution, SoftmaxPixels
from pretrain.layers.masked_convolution import ConvolutionCache, MaskedConvolution, groups_of
from pretrain.models.autoregressive.pixelcnn_stacks import GatedStacks, MaskedStack
from pretrain.models.autoregressive.visible import VisibleModel
from pretrain.models.vectors import Accepts, VectorModelConfig


class PixelCNNConfig(VectorModelConfig):
    """An image's size, what a pixel is distributed by, and the sizes of the layers."""

    kind: Literal["pixelcnn"]
    channels: int = Field(default=1, gt=0)
    height: int = Field(gt=0)
    width: int = Field(gt=0)
    gated: bool = True
    """A vertical and a horizontal stack with gates, which see all earlier pixels; else one stack with a blind spot."""
    output: Literal["bernoulli", "softmax", "logistic"] = "bernoulli"
    levels: int = Field(default=2, ge=2)
    """Values of a pixel's channel."""
    num_components: int = Field(default=5, gt=0)
    """Of output=logistic."""
    features: int = Field(gt=0)
    """Channels of the hidden layers; divisible by `channels` where the network tells them apart."""
    num_layers: int = Field(gt=0)
    """After the first."""
    first_kernel: int = Field(default=7, gt=0)
    kernel: int = Field(default=3, gt=0)
    output_features: int = Field(gt=0)
    """Channels of the layer before the output."""
    position_bias: bool = False
    """Learned features of each place, added in the first layer."""
    classes: int | None = Field(default=None, gt=0)
    """Number of classes that it is told; None: none."""

    accepts: ClassVar[Accepts] = "unit"

    @model_validator(mode="after")
    def _check(self) -> "PixelCNNConfig":
        if self.output == "bernoulli" and self.levels != 2:
            raise ValueError(f"levels={self.levels} with output=bernoulli, which has 2; use output=softmax or logistic")
        for name in ("first_kernel", "kernel"):
            if getattr(self, name) % 2 == 0:
                raise ValueError(f"{name}={getattr(self, name)} has no middle; make it odd")
        if self.first_kernel < 3:
            raise ValueError(f"first_kernel={self.first_kernel} reads no pixel before its own; make it at least 3")
        groups = self.pixels().num_groups
        for name in ("features", "output_features"):
            if getattr(self, name) % (2 * groups):
                raise ValueError(f"{name}={getattr(self, name)} must be divisible by {2 * groups}, twice the channels")
        return self

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.channels, self.height, self.width)

    @property
    def num_levels(self) -> int | None:
        return self.levels

    @property
    def num_classes(self) -> int | None:
        return self.classes

    def pixels(self) -> PixelDistribution:
        """Of one pixel."""
        if self.output == "bernoulli":
            return BernoulliPixels(self.channels)
        if self.output == "softmax":
            return SoftmaxPixels(self.channels, self.levels)
        return LogisticPixels(self.channels, self.levels, self.num_components)

    def build(self) -> "PixelCNN":
        return PixelCNN(self)


class PixelCNN(VisibleModel):
    """A stack of layers, then two convolutions of one pixel."""

    def __init__(self, config: PixelCNNConfig) -> None:
        super().__init__(config, config.channels * config.height * config.width)
        self.config, self.pixels = config, config.pixels()
        groups = self.pixels.num_groups
        image_groups_C = torch.arange(config.channels) if groups > 1 else torch.zeros(config.channels).long()
        stacks: type[GatedStacks | MaskedStack] = GatedStacks if config.gated else MaskedStack
        self.stacks = stacks(config, image_groups_C, groups)
        hidden_F, output_F = groups_of(config.features, groups), groups_of(config.output_features, groups)
        self.before_output = MaskedConvolution(hidden_F, output_F, own="with")
        self.output = MaskedConvolution(output_F, self.pixels.groups, own="with")
        with torch.no_grad():
            self.output.weight_OIKL.mul_(0.1)

    def parameters_of(self, x_RCHW: Tensor, labels_R: Tensor | None) -> Tensor:
        """[R, P, H, W] of each pixel's distribution, given the pixels before it."""
        return self._head(self.stacks(x_RCHW, labels_R))

    def _head(self, features_RFHW: Tensor) -> Tensor:
        return self.output(F.relu(self.before_output(F.relu(features_RFHW))))

    @property
    def outcomes(self) -> str:
        return "zeros and ones" if self.config.output == "bernoulli" else f"{self.config.levels} levels of each value"

    def check_values(self, values: Tensor) -> Tensor:
        if self.config.output == "bernoulli":
            return check_binary(values)
        level_of(values, self.config.levels)
        return values

    def log_prob(self, batch: VectorBatch) -> Tensor:
        """[R] log p(x) in nats."""
        values_RCHW = self.check_values(batch.values).unflatten(1, self.config.shape)
        parameters_RHWP = self.parameters_of(self._read(values_RCHW), self.checked(batch.labels)).permute(0, 2, 3, 1)
        return self.pixels.log_prob(parameters_RHWP, values_RCHW.permute(0, 2, 3, 1)).sum((1, 2))

    def _read(self, values: Tensor) -> Tensor:
        """What the layers read, in the dtype of their weights."""
        return centred(values.to(self._like().dtype))

    def draw(self, values_ND: Tensor, known_ND: Tensor, labels_N: Tensor | None) -> Tensor:
        """[N, D]; every layer computes each pixel once for each group of channels."""
        image_NCHW, known_NCHW = (x_ND.unflatten(1, self.config.shape) for x_ND in (values_ND.clone(), known_ND))
        cache = ConvolutionCache(self.config.height, self.config.width)
        for row in range(self.config.height):
            x_NC1W = self._read(image_NCHW[:, :, row, None])
            links = self.stacks.begin_row(x_NC1W, labels_N, cache.at(row, 0, self.config.width))
            for column in range(self.config.width):
                pixel_NC, known_NC = image_NCHW[:, :, row, column], known_NCHW[:, :, row, column]
                for group in range(self.pixels.num_groups):
                    x_NC11 = self._read(pixel_NC)[:, :, None, None]
                    features_NF11 = self.stacks.at_pixel(x_NC11, links, labels_N, cache.at(row, column, 1))
                    parameters_NP = self._head(features_NF11)[:, :, 0, 0]
                    pixel_NC = self.pixels.draw(parameters_NP, pixel_NC, known_NC, group)
                image_NCHW[:, :, row, column] = pixel_NC
                self.stacks.keep(self._read(pixel_NC)[:, :, None, None], cache.at(row, column, 1))
        return image_NCHW.flatten(1)

    def flops_per_count(self) -> float:
        """Each kernel once for each pixel; its masked weights are multiplied too."""
        kernels = (p.numel() for p in self.parameters() if p.ndim == 4)
        return 2.0 * sum(kernels) * self.config.height * self.config.width


def centred(values: Tensor) -> Tensor:
    """From [0, 1] to [-1, 1]."""
    return 2 * values - 1
