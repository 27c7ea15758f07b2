"""What a network says about one pixel: a distribution over its channels, from the network's parameters of that pixel.

Channels come one after another, p(x_1, .., x_C) = prod_c p(x_c given x_<c). Zeros and ones and softmaxes leave that to
the network, whose parameters of a channel have seen the channels before it (groups). A mixture of logistics
(Salimans et al. 2017, https://arxiv.org/abs/1701.05517, equations 2 and 3) does it itself, with one component m for all
channels, whose mean moves with the channels before:

    p(x) = sum_m w_m prod_c P(x_c; mean_mc + sum_(e<c) tanh(k_mce) x_e, scale_mc)     with values from -1 to 1

Shape legend: R rows, C channels, H height, W width, P parameters of a pixel, M components, ... any batch shape.
"""

import abc
import math

import torch
from torch import Tensor

from pretrain.distributions.bernoulli import bernoulli_log_prob
from pretrain.distributions.categorical import categorical_log_prob, draw_categorical, level_of, value_of
from pretrain.distributions.logistic import draw_logistic_mixture, logistic_log_prob
from pretrain.layers.precision import at_least_float32


class PixelDistribution(abc.ABC):
    """Of values in [0, 1]; parameters and channels stand in the last dimension."""

    def __init__(self, channels: int) -> None:
        self.channels = channels

    @property
    @abc.abstractmethod
    def groups(self) -> Tensor:
        """[P] of the channel that each parameter is of, as far as the network must tell channels apart."""

    @property
    def num_groups(self) -> int:
        """Of channels that the network tells apart."""
        return self.channels

    @abc.abstractmethod
    def log_prob(self, parameters: Tensor, values: Tensor) -> Tensor:
        """[..., P], [..., C] -> [...] nats."""

    @abc.abstractmethod
    def draw(self, parameters: Tensor, values: Tensor, known: Tensor, group: int) -> Tensor:
        """[..., P], [..., C] twice -> [..., C]: the values, with draws for what is not known of this group."""


class BernoulliPixels(PixelDistribution):
    """Zeros and ones."""

    @property
    def groups(self) -> Tensor:
        return torch.arange(self.channels)

    def log_prob(self, parameters: Tensor, values: Tensor) -> Tensor:
        return bernoulli_log_prob(parameters, values)

    def draw(self, parameters: Tensor, values: Tensor, known: Tensor, group: int) -> Tensor:
        drawn = torch.bernoulli(at_least_float32(parameters[..., group]).sigmoid()).to(values.dtype)
        return _filled(values, known, group, drawn)


class SoftmaxPixels(PixelDistribution):
    """Levels, each with a logit of its own."""

    def __init__(self, channels: int, num_levels: int) -> None:
        super().__init__(channels)
        self.num_levels = num_levels

    @property
    def groups(self) -> Tensor:
        return torch.arange(self.channels).repeat_interleave(self.num_levels)

    def log_prob(self, parameters: Tensor, values: Tensor) -> Tensor:
        logits = parameters.unflatten(-1, (self.channels, self.num_levels))
        return categorical_log_prob(logits, level_of(values, self.num_levels)).sum(-1)

    def draw(self, parameters: Tensor, values: Tensor, known: Tensor, group: int) -> Tensor:
        logits = parameters.unflatten(-1, (self.channels, self.num_levels))[..., group, :]
        return _filled(values, known, group, value_of(draw_categorical(logits), self.num_levels, values.dtype))


class LogisticPixels(PixelDistribution):
    """A mixture of logistics over levels."""

    def __init__(self, channels: int, num_levels: int, num_components: int) -> None:
        super().__init__(channels)
        self.num_levels, self.num_components = num_levels, num_components

    @property
    def num_groups(self) -> int:
        return 1

    @property
    def groups(self) -> Tensor:
        each = 1 + 2 * self.channels + self.channels * (self.channels - 1) // 2
        return torch.zeros(each * self.num_components, dtype=torch.int64)

    def _components(self, parameters: Tensor, values: Tensor, channel: int) -> tuple[Tensor, Tensor]:
        """[..., M] means and log scales of a channel, given the channels before it, for values from 0 to 1."""
        blocks = at_least_float32(parameters).unflatten(-1, (-1, self.num_components))
        mean, log_scale = blocks[..., 1 + channel, :], blocks[..., 1 + self.channels + channel, :]
        first = 1 + 2 * self.channels + channel * (channel - 1) // 2
        for earlier in range(channel):
            value = 2 * at_least_float32(values)[..., earlier, None] - 1
            mean = mean + blocks[..., first + earlier, :].tanh() * value
        return (mean + 1) / 2, log_scale - math.log(2)

    def _weights(self, parameters: Tensor) -> Tensor:
        return at_least_float32(parameters[..., : self.num_components]).log_softmax(-1)

    def log_prob(self, parameters: Tensor, values: Tensor) -> Tensor:
        values = value_of(level_of(values, self.num_levels), self.num_levels, at_least_float32(values).dtype)
        joint = self._weights(parameters)
        for channel in range(self.channels):
            mean, log_scale = self._components(parameters, values, channel)
            joint = joint + logistic_log_prob(values[..., channel], mean, log_scale, self.num_levels)
        return joint.logsumexp(-1)

    def draw(self, parameters: Tensor, values: Tensor, known: Tensor, group: int) -> Tensor:
        """Channel by channel, each from the mixture that is left once the channels before it are known."""
        joint = self._weights(parameters)
        for channel in range(self.channels):
            mean, log_scale = self._components(parameters, values, channel)
            drawn = draw_logistic_mixture(joint, mean, log_scale, self.num_levels).to(values.dtype)
            values = _filled(values, known, channel, drawn)
            joint = joint + logistic_log_prob(values[..., channel], mean, log_scale, self.num_levels)
        return values


def _filled(values: Tensor, known: Tensor, channel: int, drawn: Tensor) -> Tensor:
    values = values.clone()
    values[..., channel] = torch.where(known[..., channel], values[..., channel], drawn)
    return values
