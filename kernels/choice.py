"""Which implementation of an operation runs: asked for by name, or chosen by where the tensors are."""

from typing import Literal, get_args

import torch

Implementation = Literal["auto", "triton", "reference"]
"""`auto`: the fused kernel on a GPU where it supports the inputs, else the reference."""

IMPLEMENTATIONS: tuple[Implementation, ...] = get_args(Implementation)

GPU_TYPES = ("cuda",)
"""torch's device types that Triton compiles for; AMD's are `cuda` as well."""


def choose(operation: str, asked: Implementation, unsupported: str | None, device: torch.device) -> str:
    """`triton` or `reference`. Raises ValueError, with the reason, where the fused one is asked for and cannot run."""
    if asked == "triton" and unsupported is not None:
        raise ValueError(f"{operation}: impl='triton' cannot run: {unsupported}; use impl='reference', or 'auto'")
    if asked == "auto":
        return "triton" if unsupported is None and device.type in GPU_TYPES else "reference"
    return asked


def no_triton(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why no kernel of Triton computes tensors of this kind here, or None."""
    if dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return f"it computes float32, float16 and bfloat16, not {dtype}"
    if device.type in GPU_TYPES:
        return None
    if device.type != "cpu":
        return f"it is compiled for GPUs of NVIDIA and AMD, the tensors are on {device}"
    try:
        from triton import knobs
    except ImportError:
        return "triton is not installed"
    if not knobs.runtime.interpret:
        return "the tensors are on the CPU, where only its interpreter runs (TRITON_INTERPRET=1)"
    if dtype == torch.bfloat16:
        return "its interpreter multiplies bfloat16 wrongly; use float32 or float16"
    return None


def float32_products(dtype: torch.dtype) -> str:
    """`input_precision` of a kernel's products: float32 is rounded to TF32 only where torch may do so as well."""
    return "tf32" if dtype == torch.float32 and torch.get_float32_matmul_precision() != "highest" else "ieee"
