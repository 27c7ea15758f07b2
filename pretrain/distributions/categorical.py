"""One of K levels.

Shape legend: ... any batch shape, K levels.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from data_pipeline.config import BadInput
from pretrain.layers.precision import at_least_float32


def level_of(values: Tensor, num_levels: int) -> Tensor:
    """int64 places 0 .. K - 1 of numbers that are evenly spaced from 0 to 1; BadInput where one is outside of that."""
    places = (values * (num_levels - 1)).round()
    if places.numel() and not (float(places.min()) >= 0 and float(places.max()) <= num_levels - 1):  # nor NaN
        raise BadInput(
            f"values from {float(values.min()):g} to {float(values.max()):g}: must lie from 0 to 1, where the "
            f"{num_levels} levels are; scale them"
        )
    return places.long()


def value_of(places: Tensor, num_levels: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """The number in [0, 1] of each place."""
    return places.to(dtype) / (num_levels - 1)


def categorical_log_prob(logits: Tensor, places: Tensor) -> Tensor:
    """[..., K], [...] -> [...] nats, at least float32."""
    logits = at_least_float32(logits)
    return -F.cross_entropy(logits.flatten(0, -2), places.flatten(), reduction="none").view(places.shape)


def draw_categorical(logits: Tensor) -> Tensor:
    """[..., K] -> [...] a place of each."""
    weights = at_least_float32(logits).softmax(-1)
    return torch.multinomial(weights.flatten(0, -2), 1).view(logits.shape[:-1])
