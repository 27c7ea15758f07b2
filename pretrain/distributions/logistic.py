"""Mixtures of logistic distributions over evenly spaced levels.

Salimans et al. 2017 (PixelCNN++, https://arxiv.org/abs/1701.05517, equation 2), on levels l = 0 .. L - 1 at l / (L - 1)
in [0, 1]. With s the logistic function and a, b the (standardised) upper and lower edge of a level's bin,

    P(l) = sum_m w_m (s(a_m) - s(b_m)),    the first bin open below, the last open above,

so that the P(l) sum to one. s(a) - s(b) = s(a) s(-b) (1 - exp(b - a)) loses nothing in either tail. Scales have a floor
of e^-3 bins (`lowest_log_scale`), where the level at the mean has all but 1e-4 of the probability.

Shape legend: ... any batch shape, M components.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from pretrain.layers.precision import at_least_float32


def lowest_log_scale(num_levels: int) -> float:
    """Of a component: it is narrow beside a bin, of width 1 / (L - 1), so narrower ones say nothing new."""
    return -math.log(num_levels - 1) - 3


def logistic_log_prob(values: Tensor, means: Tensor, log_scales: Tensor, num_levels: int) -> Tensor:
    """[...] levels in [0, 1], [..., M] twice -> [..., M] nats of each component, at least float32."""
    x = at_least_float32(values)[..., None]
    log_scales = at_least_float32(log_scales).clamp(min=lowest_log_scale(num_levels))
    inverse, centred = (-log_scales).exp(), x - at_least_float32(means)
    half = 0.5 / (num_levels - 1)
    upper, lower = (centred + half) * inverse, (centred - half) * inverse
    below = torch.where(x < half, torch.zeros_like(upper), F.logsigmoid(-lower))
    above = torch.where(x > 1 - half, torch.zeros_like(upper), F.logsigmoid(upper))
    inside = (x >= half) & (x <= 1 - half)
    width = 2 * half * inverse
    between = torch.where(inside, torch.log(-torch.expm1(-width)), torch.zeros_like(width))
    return below + above + between


def logistic_mixture_log_prob(
    values: Tensor, weight_logits: Tensor, means: Tensor, log_scales: Tensor, num_levels: int
) -> Tensor:
    """[...] levels in [0, 1], [..., M] three times -> [...] nats, at least float32."""
    weights = at_least_float32(weight_logits).log_softmax(-1)
    return torch.logsumexp(weights + logistic_log_prob(values, means, log_scales, num_levels), -1)


def draw_logistic_mixture(weight_logits: Tensor, means: Tensor, log_scales: Tensor, num_levels: int) -> Tensor:
    """[..., M] three times -> [...] levels in [0, 1]: a component, a logistic number of it, the bin of that."""
    weights = at_least_float32(weight_logits).softmax(-1)
    chosen = torch.multinomial(weights.flatten(0, -2), 1).view(*weights.shape[:-1], 1)
    mean = at_least_float32(means).gather(-1, chosen)[..., 0]
    scale = at_least_float32(log_scales).clamp(min=lowest_log_scale(num_levels)).gather(-1, chosen)[..., 0].exp()
    chance = torch.rand_like(mean).clamp(torch.finfo(mean.dtype).tiny, 1 - torch.finfo(mean.dtype).eps)
    drawn = mean + scale * (chance.log() - torch.log1p(-chance))
    return (drawn.clamp(0, 1) * (num_levels - 1)).round() / (num_levels - 1)


def standard_logistic_log_prob(z: Tensor) -> Tensor:
    """[..., Z] -> [...] nats of the density s'(z) = s(z) s(-z)."""
    z = at_least_float32(z)
    return (F.logsigmoid(z) + F.logsigmoid(-z)).sum(-1)


def draw_standard_logistic(like: Tensor) -> Tensor:
    """Numbers of the shape, dtype and device of another tensor."""
    chance = torch.rand_like(like).clamp(torch.finfo(like.dtype).tiny, 1 - torch.finfo(like.dtype).eps)
    return torch.logit(chance)
