"""A perceptron whose outputs for dimension i see only dimensions before i.

MADE (Germain et al. 2015): `pretrain.layers.masked_linear` has the masks. An input's degree is its place, degrees of
hidden units go round.

Shape legend: R rows, D values of a row, K numbers for each of them, H hidden units, C values of a context.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from pretrain.bijections.conditioners import LAST_SCALE
from pretrain.layers.masked_linear import MaskedLinear, hidden_mask, output_mask


class MaskedPerceptron(nn.Module):
    """[R, D] and perhaps a context [R, C] -> [R, D, K]."""

    def __init__(self, num_values: int, hidden_widths: Sequence[int], outputs: int, context_width: int = 0) -> None:
        super().__init__()
        self.outputs = outputs
        degrees = [torch.arange(1, num_values + 1)]
        degrees += [torch.arange(width) % max(num_values - 1, 1) + 1 for width in hidden_widths]
        masks = [hidden_mask(later, earlier) for earlier, later in pairwise(degrees)]
        masks.append(output_mask(degrees[0].repeat_interleave(outputs), degrees[-1]))
        for number, mask in enumerate(masks):
            self.register_buffer(f"mask{number}", mask, persistent=False)
        *hidden, last = (MaskedLinear(mask.shape[1], mask.shape[0]) for mask in masks)
        self.hidden, self.last = nn.ModuleList(hidden), last
        self.context = nn.Linear(context_width, hidden_widths[0], bias=False) if context_width else None
        with torch.no_grad():
            for parameter in self.last.parameters():
                parameter.mul_(LAST_SCALE)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        h = x
        for number, layer in enumerate(self.hidden):
            h = layer(h, self.get_buffer(f"mask{number}"))
            if number == 0 and self.context is not None:
                assert context is not None, "this network was made to read a context"
                h = h + self.context(context)
            h = h.relu()
        numbers: Tensor = self.last(h, self.get_buffer(f"mask{len(self.hidden)}"))
        return numbers.unflatten(1, (-1, self.outputs))
