"""Output layer and cross-entropy as one operation, which never holds float32 logits of all rows."""

import torch
from torch import Tensor

from kernels.choice import Implementation, choose, no_triton
from kernels.linear_cross_entropy import reference
from kernels.linear_cross_entropy.reference import IGNORED

__all__ = ["IGNORED", "linear_cross_entropy", "unsupported"]


def linear_cross_entropy(
    hidden_NW: Tensor,
    weight_VW: Tensor,
    bias_V: Tensor | None,
    labels_N: Tensor,
    *,
    mostly_ignored: bool = False,
    impl: Implementation = "auto",
) -> Tensor:
    """[N] -log softmax(hidden_n W' + b)[label_n] in nats, float32 (float64 for float64 inputs).

    A row whose label is -100 (`IGNORED`) costs nothing and has no gradient; its hidden state must be finite all the
    same. Any other label must be from 0 to V - 1: on a CPU that is checked, on a GPU, where looking would make the host
    wait, nats and gradients of such a row are no numbers. Differentiable once by hidden states,
    weight and bias; sums are in float32. The fused kernel holds no logits (backward: a bounded buffer of errors); the
    reference holds the errors of all rows in the dtype of the hidden states. `mostly_ignored` changes no number: it
    says that most rows are, and lie together, so that the fused kernel had better skip them everywhere.

    Raises ValueError naming the argument, its shape and the rule, and where `impl` names one that cannot run.
    """
    _check(hidden_NW, weight_VW, bias_V, labels_N)
    chosen = choose("linear_cross_entropy", impl, lambda: unsupported(hidden_NW), hidden_NW.device)
    if chosen == "reference" or not len(labels_N):
        return reference.linear_cross_entropy(hidden_NW, weight_VW, bias_V, labels_N)
    from kernels.linear_cross_entropy import triton

    return triton.linear_cross_entropy(hidden_NW, weight_VW, bias_V, labels_N, mostly_ignored=mostly_ignored)


def unsupported(hidden_NW: Tensor) -> str | None:
    """Why the fused kernel cannot compute with hidden states of this dtype and device; None where it can."""
    return no_triton(hidden_NW.device, hidden_NW.dtype)


def _check(hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor) -> None:
    if hidden.dim() != 2:
        raise ValueError(f"hidden_NW has shape {tuple(hidden.shape)}; it must have 2 dimensions: rows and width")
    rows, width = hidden.shape
    columns = weight.shape[0] if weight.dim() else 0
    wanted = {"weight_VW": (weight, (columns, width)), "labels_N": (labels, (rows,))}
    if bias is not None:
        wanted["bias_V"] = (bias, (columns,))
    if columns < 1:
        raise ValueError(f"weight_VW has shape {tuple(weight.shape)}; it must be (V, {width}), V >= 1")
    for name, (tensor, shape) in wanted.items():
        if tuple(tensor.shape) != shape:
            rule = f"(V, {width})" if name == "weight_VW" else f"{shape}"
            given = f"hidden_NW {tuple(hidden.shape)}" + (f" and V = {columns}" if name == "bias_V" else "")
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}; with {given} it must be {rule}")
        if tensor.device != hidden.device:
            raise ValueError(f"{name} {shape} is on {tensor.device}; it must be on {hidden.device}, as hidden_NW is")
        if name != "labels_N" and tensor.dtype != hidden.dtype:
            raise ValueError(f"{name} {shape} is of {tensor.dtype}; it must be of {hidden.dtype}, as hidden_NW is")
    if labels.dtype != torch.int64:
        raise ValueError(f"labels_N {tuple(labels.shape)} is of {labels.dtype}; it must be of torch.int64")
    if labels.device.type == "cpu" and type(labels) is Tensor:  # not where numbers are only imagined
        wrong = labels[((labels < 0) & (labels != IGNORED)) | (labels >= columns)]
        if len(wrong):
            raise ValueError(f"labels_N has {int(wrong[0])}; a label must be from 0 to {columns - 1}, or {IGNORED}")
    for name, tensor in (("hidden_NW", hidden), ("weight_VW", weight)):
        if tensor.numel() and tensor.shape[-1] > 1 and tensor.stride(-1) != 1:
            raise ValueError(
                f"{name} {tuple(tensor.shape)} has strides {tensor.stride()}; its last dimension must be contiguous"
            )
