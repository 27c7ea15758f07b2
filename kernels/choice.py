"""Which implementation of an operation runs: asked for by name, or chosen by where the tensors are."""

from collections.abc import Callable
from contextvars import ContextVar
from typing import Literal, get_args

import torch

Implementation = Literal["auto", "triton", "reference"]
"""`auto`: the fused kernel on a GPU where it supports the inputs, else the reference."""

IMPLEMENTATIONS: tuple[Implementation, ...] = get_args(Implementation)

GPU_TYPES = ("cuda",)
"""torch's device types that Triton compiles for; AMD's are `cuda` as well."""

DRY: ContextVar[bool] = ContextVar("dry", default=False)
"""Whether nothing is launched (`kernels.dry_run`), so that fused kernels can be chosen wherever the tensors are."""


def choose(
    operation: str, asked: Implementation, unsupported: Callable[[], str | None], device: torch.device
) -> Literal["triton", "reference"]:
    """What computes. Raises ValueError where the fused one is asked for and cannot run, with the reason, and where
    something else is asked for."""
    if asked not in IMPLEMENTATIONS:
        raise ValueError(f"{operation}: impl is {asked!r}; it must be one of {', '.join(IMPLEMENTATIONS)}")
    if asked == "reference" or (asked == "auto" and device.type not in GPU_TYPES):
        return "reference"
    reason = unsupported()
    if reason is not None and asked == "triton":
        raise ValueError(f"{operation}: impl='triton' cannot run: {reason}; use impl='reference', or 'auto'")
    return "triton" if reason is None else "reference"


def refuse_second_order(operation: str) -> None:
    """For the backward pass of what is differentiable once: RuntimeError where a graph of it is asked for."""
    if torch.is_grad_enabled():
        raise RuntimeError(
            f"{operation} is differentiable once here, but backward was called with create_graph=True; "
            "impl='reference' of relative_attention is differentiable any number of times"
        )


def no_triton(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why no kernel of Triton computes tensors of this kind here, or None."""
    if dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return f"it computes float32, float16 and bfloat16, not {dtype}"
    if DRY.get():
        return None
    if device.type not in (*GPU_TYPES, "cpu"):
        return f"it is compiled for GPUs of NVIDIA and AMD, the tensors are on {device}"
    try:
        from triton import knobs
    except ImportError:
        return "triton is not installed"
    if device.type in GPU_TYPES:
        return _too_old(device)
    if not knobs.runtime.interpret:
        return "the tensors are on the CPU, where only its interpreter runs (TRITON_INTERPRET=1)"
    if dtype == torch.bfloat16:
        return "its interpreter multiplies bfloat16 wrongly; use float32 or float16"
    return None


def _too_old(device: torch.device) -> str | None:
    """The kernels are built and bounded for NVIDIA's compute capability 8.0 and later (`kernels.aot`)."""
    if torch.version.cuda is None:
        return None
    major, minor = torch.cuda.get_device_capability(device)
    return None if major >= 8 else f"the GPU has compute capability {major}.{minor}, it needs 8.0 at least"


def float32_products(dtype: torch.dtype) -> str:
    """`input_precision` of a kernel's products: float32 is rounded to TF32 only where torch may do so as well."""
    return "tf32" if dtype == torch.float32 and torch.get_float32_matmul_precision() != "highest" else "ieee"
