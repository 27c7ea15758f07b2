"""Attention with relative positions over a segment and its memory (Transformer-XL); README.md derives the kernels."""

import torch
from torch import Tensor

from kernels.choice import Implementation, choose, no_triton
from kernels.relative_attention import reference
from kernels.relative_attention.reference import window_mask

__all__ = ["relative_attention", "unsupported", "unsupported_width", "window_mask"]

WIDEST_HEAD = 128
"""That the fused kernels hold in registers."""


def relative_attention(
    q_BLHD: Tensor,
    k_BKHD: Tensor,
    v_BKHD: Tensor,
    r_THD: Tensor,
    u_HD: Tensor,
    w_HD: Tensor,
    *,
    window_BL: Tensor,
    dropout: float = 0.0,
    memory_gradient: bool = True,
    impl: Implementation = "auto",
) -> Tensor:
    """[B, L, H, D] what L queries read of K = M + L keys: M of memory, then the segment's own.

    Query i sees key j where 0 <= i + M - j <= window_BL[b, i] (int64, not negative): at least itself. `r_THD[t]` is the
    projected encoding of distance t; a distance beyond the table uses its last entry (the paper's clamp). `u_HD` and
    `w_HD` are the paper's u and v. `dropout` is applied to the attention weights; its seed comes from torch's default
    generator of the CPU for the fused kernel, from that of the device for the reference, so the two drop differently.
    Without `memory_gradient` the keys and values of memory get a gradient of zero: for memory that holds them.

    Dai et al. 2019 (https://arxiv.org/abs/1901.02860), section 3.3. Differentiable once (the reference: any number of
    times) by all tensors but the window. The fused kernel holds no scores; the reference all of them.

    Raises ValueError naming the argument, its shape and the rule, and where `impl` names one that cannot run.
    """
    tensors = (q_BLHD, k_BKHD, v_BKHD, r_THD, u_HD, w_HD)
    _check(*tensors, window_BL)
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"dropout is {dropout}; it must be at least 0 and less than 1")
    if choose("relative_attention", impl, lambda: unsupported(q_BLHD), q_BLHD.device) == "reference":
        return reference.relative_attention(
            *tensors, window_BL=window_BL, dropout=dropout, memory_gradient=memory_gradient
        )
    from kernels.relative_attention import fused

    seed = int(torch.randint(2**62, (), device="cpu")) if dropout > 0.0 else 0
    settings = fused.Settings(dropout, seed, memory_gradient)
    return fused.relative_attention(fused.Tensors(*tensors, window_BL), settings)


def unsupported(q_BLHD: Tensor) -> str | None:
    """Why the fused kernel cannot compute with queries of this dtype, device and width; None where it can."""
    return unsupported_width(q_BLHD.shape[-1]) or no_triton(q_BLHD.device, q_BLHD.dtype)


def unsupported_width(width: int) -> str | None:
    """Why the fused kernel cannot compute heads of this width, or None."""
    return f"heads are {width} wide, it holds {WIDEST_HEAD} at most" if width > WIDEST_HEAD else None


def _check(q: Tensor, k: Tensor, v: Tensor, r: Tensor, u: Tensor, w: Tensor, window: Tensor) -> None:
    if q.dim() != 4:
        raise ValueError(f"q_BLHD has shape {tuple(q.shape)}; it must have 4 dimensions: rows, queries, heads, width")
    batch, queries, heads, width = q.shape
    keys, distances = (x.shape[y] if x.dim() > y else 0 for x, y in ((k, 1), (r, 0)))
    wanted = {
        "k_BKHD": (k, (batch, keys, heads, width)),
        "v_BKHD": (v, (batch, keys, heads, width)),
        "r_THD": (r, (distances, heads, width)),
        "u_HD": (u, (heads, width)),
        "w_HD": (w, (heads, width)),
        "window_BL": (window, (batch, queries)),
    }
    for name, (tensor, shape) in wanted.items():
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}; with q_BLHD {tuple(q.shape)} it must be {shape}")
        if tensor.device != q.device:
            raise ValueError(f"{name} {shape} is on {tensor.device}; it must be on {q.device}, as q_BLHD is")
        if name != "window_BL" and tensor.dtype != q.dtype:
            raise ValueError(f"{name} {shape} is of {tensor.dtype}; it must be of {q.dtype}, as q_BLHD is")
    for name, tensor in (("q_BLHD", q), *((name, tensor) for name, (tensor, _) in wanted.items())):
        if tensor.numel() and tensor.shape[-1] > 1 and tensor.stride(-1) != 1:
            raise ValueError(
                f"{name} {tuple(tensor.shape)} has strides {tensor.stride()}; its last dimension must be contiguous"
            )
    if window.dtype != torch.int64:
        raise ValueError(f"window_BL {tuple(window.shape)} is of {window.dtype}; it must be of torch.int64")
    if min(q.shape) < 1:
        raise ValueError(f"q_BLHD has shape {tuple(q.shape)}; each dimension must be at least 1")
    if keys < queries:
        raise ValueError(
            f"k_BKHD {tuple(k.shape)} has {keys} keys for {queries} queries; K = M + L, of memory and segment: K >= L"
        )
    if distances < 1:
        raise ValueError(f"r_THD has shape {tuple(r.shape)}; it needs at least distance 0")
