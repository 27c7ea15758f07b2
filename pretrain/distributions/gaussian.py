"""Independent normal numbers.

Shape legend: ... any batch shape, Z dimensions.
"""

import math

import torch
from torch import Tensor

from pretrain.layers.precision import at_least_float32

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def normal_log_prob(x: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """[..., Z] nats of each dimension, at least float32."""
    x, mean, log_std = at_least_float32(x), at_least_float32(mean), at_least_float32(log_std)
    return -0.5 * ((x - mean) * (-log_std).exp()).square() - log_std - HALF_LOG_2PI


def standard_normal_log_prob(z: Tensor) -> Tensor:
    """[..., Z] -> [...] nats."""
    return (-0.5 * at_least_float32(z).square() - HALF_LOG_2PI).sum(-1)


def kl_to_standard_normal(mean: Tensor, log_std: Tensor) -> Tensor:
    """[..., Z] KL(N(mean, std^2), N(0, 1)) of each dimension, in nats."""
    mean, log_std = at_least_float32(mean), at_least_float32(log_std)
    return 0.5 * (mean.square() + (2 * log_std).exp() - 1) - log_std


def draw_normal(mean: Tensor, log_std: Tensor) -> Tensor:
    """mean + std * noise, differentiable in both (Kingma & Welling 2014, section 2.4)."""
    return mean + log_std.exp() * torch.randn_like(mean)
