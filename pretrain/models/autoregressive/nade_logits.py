"""All conditionals of a NADE at once, some places at a time.

Larochelle & Murray 2011, equations 2 and 3, over the values in their order,

    a_d = s + sum_(j<d) x_j W_j,    h_d = sigmoid(a_d),    l_d = V_d . h_d

Written down as it stands, the cumulative sum and all that comes after it fill R D H numbers each, forward and
backward, and a step waits for memory. Here C places are computed at a time and nothing of that size outlives them:
within a block, which begins with the a that the block before has left,

    a_(c) = a + (x masked to j < c) W

is a matrix product. Backward computes the block's h again, from its last block to its first, with what all later places
say of a, g = sum_(later d) dl_d V_d h_d (1 - h_d).

Shape legend: R rows, D values in their order, H hidden units, C places of a block.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

NUMBERS_OF_A_BLOCK = 200_000
"""Of R C H: what stays in a core's cache."""
MOST_PLACES = 16
"""Of a block, whose product grows with their square."""


def nade_logits(x_RD: Tensor, weight_DH: Tensor, start_RH: Tensor, output_weight_DH: Tensor) -> Tensor:
    """[R, D] l as above, in the weights' dtype; differentiable once, in all but x.

    `start_RH` may have one row for all.
    """
    start_RH = start_RH.expand(len(x_RD), -1)
    logits_RD: Tensor = _Blocks.apply(x_RD.to(weight_DH.dtype), weight_DH, start_RH, output_weight_DH)
    return logits_RD


class _Blocks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_RD: Tensor, weight_DH: Tensor, start_RH: Tensor, output_weight_DH: Tensor) -> Tensor:
        logits_RD, before_RH, starts = torch.empty_like(x_RD), start_RH, []
        for places in _blocks(x_RD, start_RH):
            starts.append(before_RH)
            hidden_CRH, _ = _hidden(x_RD[:, places], weight_DH[places], before_RH)
            logits_RD[:, places] = torch.bmm(hidden_CRH, output_weight_DH[places, :, None])[..., 0].T
            before_RH = torch.addmm(before_RH, x_RD[:, places], weight_DH[places])
        ctx.save_for_backward(x_RD, weight_DH, output_weight_DH, *starts)
        return logits_RD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_logits_RD: Tensor) -> tuple[Tensor | None, ...]:
        x_RD, weight_DH, output_weight_DH, *starts = ctx.saved_tensors
        d_weight_DH, d_output_DH = torch.empty_like(weight_DH), torch.empty_like(output_weight_DH)
        later_RH = torch.zeros_like(starts[0])
        for places, before_RH in zip(reversed(list(_blocks(x_RD, starts[0]))), reversed(starts), strict=True):
            hidden_CRH, earlier_CRC = _hidden(x_RD[:, places], weight_DH[places], before_RH)
            d_logits_CR = d_logits_RD[:, places].T
            d_output_DH[places] = torch.bmm(d_logits_CR[:, None], hidden_CRH)[:, 0]
            slope_CRH = torch.addcmul(hidden_CRH, hidden_CRH, hidden_CRH, value=-1)
            slope_CRH *= output_weight_DH[places, None]
            slope_CRH *= d_logits_CR[..., None]
            d_weight_DH[places] = earlier_CRC.flatten(0, 1).T @ slope_CRH.flatten(0, 1)
            d_weight_DH[places] += x_RD[:, places].T @ later_RH
            later_RH += slope_CRH.sum(0)
        return None, d_weight_DH, later_RH, d_output_DH


def _blocks(x_RD: Tensor, before_RH: Tensor) -> Iterator[slice]:
    num_values = x_RD.shape[1]
    size = max(1, min(MOST_PLACES, NUMBERS_OF_A_BLOCK // max(1, before_RH.numel())))
    return (slice(first, min(first + size, num_values)) for first in range(0, num_values, size))


def _hidden(x_RC: Tensor, weight_CH: Tensor, before_RH: Tensor) -> tuple[Tensor, Tensor]:
    """h [C, R, H] of a block, and the values that each place sees of it [C, R, C]."""
    earlier_CC = torch.ones(x_RC.shape[1], x_RC.shape[1], dtype=x_RC.dtype, device=x_RC.device).tril_(-1)
    earlier_CRC = x_RC * earlier_CC[:, None]
    a_CRH = (earlier_CRC.flatten(0, 1) @ weight_CH).unflatten(0, (-1, len(x_RC)))
    return a_CRH.add_(before_RH).sigmoid_(), earlier_CRC
