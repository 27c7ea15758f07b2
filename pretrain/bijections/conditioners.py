"""Networks that say how one part of a row transforms another.

Their last layer begins at a tenth of the usual size, so that a flow begins near the identity.

Shape legend: R rows, D values, C channels, H height, W width.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

LAST_SCALE = 0.1


def perceptron(widths: Sequence[int]) -> nn.Sequential:
    """[R, widths[0]] -> [R, widths[-1]], with ReLU between."""
    layers: list[nn.Module] = []
    for width, following in pairwise(widths):
        layers += [nn.Linear(width, following), nn.ReLU()]
    return _shrunk(nn.Sequential(*layers[:-1]))


def convolutional(channels: int, hidden: int, out: int) -> nn.Sequential:
    """[R, channels, H, W] -> [R, out, H, W]: 3 x 3, 1 x 1 and 3 x 3 (Kingma & Dhariwal 2018, appendix B)."""
    return _shrunk(
        nn.Sequential(
            nn.Conv2d(channels, hidden, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(hidden, hidden, 1),
            nn.ReLU(),
            nn.Conv2d(hidden, out, 3, padding=1),
        )
    )


@torch.no_grad()
def _shrunk(network: nn.Sequential) -> nn.Sequential:
    for parameter in network[-1].parameters():
        parameter.mul_(LAST_SCALE)
    return network
