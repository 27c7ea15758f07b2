"""-log softmax(h W' + b)[label] in plain torch, a block of rows at a time.

The forward pass already knows the gradient by the logits but for one factor per row,

    d nats_n / d z_nv = p_nv - [v = label_n],

so it keeps that, in the dtype of the hidden states, in place of the logits; backward is two matrix products. Softmax
and logarithm are in float32 (float64 for float64 inputs).

Shape legend: N rows, W width, V vocabulary, R rows of a block.
"""

from typing import Any

import torch
from torch import Tensor

from kernels.choice import refuse_second_order

IGNORED = -100
"""A label that is not scored: zero nats, no gradient."""

BLOCK_ROWS = 128
"""Rows whose float32 logits are held at once: few enough to stay in a processor's cache."""


def linear_cross_entropy(hidden_NW: Tensor, weight_VW: Tensor, bias_V: Tensor | None, labels_N: Tensor) -> Tensor:
    """[N] nats, float32 or float64. Differentiable once by hidden states, weight and bias."""
    nats_N: Tensor = _LinearCrossEntropy.apply(hidden_NW, weight_VW, bias_V, labels_N)
    return nats_N


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_NW: Tensor, weight_VW: Tensor, bias_V: Tensor | None, labels_N: Tensor) -> Tensor:
        work = torch.float64 if hidden_NW.dtype == torch.float64 else torch.float32
        error_NV = hidden_NW @ weight_VW.t()
        bias = None if bias_V is None else bias_V.to(work)
        nats_N = torch.empty(labels_N.shape, dtype=work, device=hidden_NW.device)
        for start in range(0, labels_N.shape[0], BLOCK_ROWS):
            rows = slice(start, start + BLOCK_ROWS)
            label_R1 = labels_N[rows].clamp(0, weight_VW.shape[0] - 1)[:, None]
            nats_N[rows] = _errors_in_place(error_NV[rows], bias, label_R1, work)
        ignored_N = labels_N == IGNORED
        outside_N = ((labels_N < 0) & ~ignored_N) | (labels_N >= weight_VW.shape[0])
        nats_N.masked_fill_(outside_N, torch.nan)
        error_NV.masked_fill_(outside_N[:, None], torch.nan)
        ctx.has_bias = bias_V is not None
        ctx.save_for_backward(hidden_NW, weight_VW, error_NV, ignored_N)
        return nats_N.masked_fill_(ignored_N, 0.0)

    @staticmethod
    def backward(ctx: Any, gradient_N: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_order("linear_cross_entropy")
        hidden_NW, weight_VW, error_NV, ignored_N = ctx.saved_tensors
        factor_N1 = gradient_N.masked_fill(ignored_N, 0.0)[:, None]
        d_hidden_NW = ((error_NV @ weight_VW) * factor_N1).to(hidden_NW.dtype)
        d_weight_VW = error_NV.t() @ (hidden_NW * factor_N1).to(hidden_NW.dtype)
        d_bias_V = (factor_N1.to(error_NV.dtype).t() @ error_NV)[0] if ctx.has_bias else None
        return d_hidden_NW, d_weight_VW, d_bias_V, None


def _errors_in_place(z_RV: Tensor, bias_V: Tensor | None, label_R1: Tensor, work: torch.dtype) -> Tensor:
    """Overwrite the block's logits with p - [v = label]; returns its nats [R]. expm1 keeps small errors exact."""
    shifted_RV = z_RV.to(work, copy=True)
    if bias_V is not None:
        shifted_RV += bias_V
    shifted_RV -= shifted_RV.amax(1, keepdim=True)
    label_logit_R1 = shifted_RV.gather(1, label_R1)
    sum_R1 = shifted_RV.exp_().sum(1, keepdim=True)
    nats_R1 = sum_R1.log() - label_logit_R1
    z_RV.copy_(shifted_RV.div_(sum_R1).scatter_(1, label_R1, torch.expm1(-nats_R1)))
    return nats_R1[:, 0]
