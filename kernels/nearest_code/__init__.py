"""The nearest entry of a codebook (vector quantization): argmin over codes of |x - c|^2.

van den Oord et al. 2017 (https://arxiv.org/abs/1711.00937), equation 1.
"""

import torch
from torch import Tensor

from kernels.choice import Implementation, choose, no_triton
from kernels.nearest_code import reference

__all__ = ["nearest_code", "unsupported"]


@torch.no_grad()
def nearest_code(x_NW: Tensor, codes_KW: Tensor, *, impl: Implementation = "auto") -> Tensor:
    """[N] int64: for each vector the number of its nearest code; of equally near ones the lowest.

    Squared distances are compared as |c|^2 / 2 - x . c, in float32 (float64 for float64 inputs); no matrix of them is
    held by the fused kernel. Without a gradient, as an index has none. All numbers must be finite.

    Raises ValueError naming the argument, its shape and the rule, and where `impl` names one that cannot run.
    """
    _check(x_NW, codes_KW)
    chosen = choose("nearest_code", impl, lambda: unsupported(x_NW), x_NW.device)
    if chosen == "reference" or not len(x_NW):
        return reference.nearest_code(x_NW, codes_KW)
    from kernels.nearest_code import triton

    return triton.nearest_code(x_NW, codes_KW)


def unsupported(x_NW: Tensor) -> str | None:
    """Why the fused kernel cannot compute with vectors of this dtype and device; None where it can."""
    return no_triton(x_NW.device, x_NW.dtype)


def _check(x: Tensor, codes: Tensor) -> None:
    if x.dim() != 2:
        raise ValueError(f"x_NW has shape {tuple(x.shape)}; it must have 2 dimensions: vectors and width")
    if codes.dim() != 2 or codes.shape[1] != x.shape[1] or not len(codes):
        raise ValueError(
            f"codes_KW has shape {tuple(codes.shape)}; with x_NW {tuple(x.shape)} it must be (K, {x.shape[1]}), K >= 1"
        )
    if codes.device != x.device or codes.dtype != x.dtype:
        raise ValueError(
            f"codes_KW {tuple(codes.shape)} is of {codes.dtype} on {codes.device}; "
            f"it must be of {x.dtype} on {x.device}, as x_NW is"
        )
    for name, tensor in (("x_NW", x), ("codes_KW", codes)):
        if tensor.numel() and tensor.shape[-1] > 1 and tensor.stride(-1) != 1:
            raise ValueError(
                f"{name} {tuple(tensor.shape)} has strides {tensor.stride()}; its last dimension must be contiguous"
            )
