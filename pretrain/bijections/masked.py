"""A perceptron whose outputs for dimension i see only dimensions before i.

MADE (Germain et al. 2015, https://arxiv.org/abs/1502.03509, equations 8 and 9): every unit has a degree, an input's is
its place, and a unit sees units of no greater degree (an output: of smaller). Degrees of hidden units go round.

Shape legend: R rows, D values of a row, K numbers for each of them, H hidden units, C values of a context.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pretrain.bijections.conditioners import LAST_SCALE


class MaskedLinear(nn.Linear):
    """A linear layer with some of its weights kept at zero."""

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        """`mask` [outputs, inputs]: true where a weight is."""
        super().__init__(mask.shape[1], mask.shape[0])
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.mask, self.bias)


class MaskedPerceptron(nn.Module):
    """[R, D] and perhaps a context [R, C] -> [R, D, K]."""

    def __init__(self, num_values: int, hidden_widths: Sequence[int], outputs: int, context_width: int = 0) -> None:
        super().__init__()
        self.outputs = outputs
        degrees = [torch.arange(1, num_values + 1)]
        degrees += [torch.arange(width) % max(num_values - 1, 1) + 1 for width in hidden_widths]
        masks = [later[:, None] >= earlier for earlier, later in pairwise(degrees)]
        self.hidden = nn.ModuleList(MaskedLinear(mask) for mask in masks)
        self.last = MaskedLinear(degrees[0].repeat_interleave(outputs)[:, None] > degrees[-1])
        self.context = nn.Linear(context_width, hidden_widths[0], bias=False) if context_width else None
        with torch.no_grad():
            for parameter in self.last.parameters():
                parameter.mul_(LAST_SCALE)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        h = x
        for number, layer in enumerate(self.hidden):
            h = layer(h)
            if number == 0 and self.context is not None:
                assert context is not None, "this network was made to read a context"
                h = h + self.context(context)
            h = h.relu()
        return self.last(h).unflatten(1, (-1, self.outputs))
