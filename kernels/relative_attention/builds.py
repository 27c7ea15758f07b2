"""Which builds of the kernels are shipped, with their bounds: see `kernels.aot`.

Head widths and dtypes of the paper's models in bfloat16, with dropout and in the other dtypes at width 64.
"""

from collections.abc import Iterator
from typing import Any

import torch

from kernels.compiled import ARCHITECTURES, SHARED_BYTES, Bound, Build
from kernels.relative_attention import triton, triton_backward
from kernels.relative_attention.fused import padded
from kernels.relative_attention.tiles import KERNELS, Kernel, tiles_for

VARIANTS = (
    (41, "bf16", False),
    (64, "bf16", False),
    (80, "bf16", False),
    (128, "bf16", False),
    (64, "bf16", True),
    (64, "fp16", False),
    (64, "fp32", False),
)
"""Width of a head, dtype, whether weights are dropped."""

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}

SPILLED_BYTES: dict[tuple[Kernel, int], int] = {}
"""Allowed by (kernel, padded width); none where it is not here."""

SUMS = ("LOG_SUM", "DELTA", "DU", "DW", "DR")
STRIDES = ("_row", "_step", "_head")


def builds() -> Iterator[Build]:
    """For every architecture."""
    for architecture in ARCHITECTURES:
        for kernel in KERNELS:
            for width, dtype, drops in VARIANTS:
                yield _build(kernel, width, dtype, architecture, drops=drops)


def _build(kernel: Kernel, width: int, dtype: str, architecture: str, *, drops: bool) -> Build:
    function = getattr(triton, f"{kernel}_kernel", None) or getattr(triton_backward, f"{kernel}_kernel")
    tiles = tiles_for(kernel, padded(width), DTYPES[dtype], architecture)
    constants: dict[str, Any] = {
        "BLOCK": tiles.block, "D": width, "DP": padded(width), "DROPS": drops, "PRECISION": "ieee", "TERM": "band",
        "STORES": False,
    }  # fmt: skip
    types = {name: _type(name, dtype) for name in function.arg_names if name not in constants}
    aligned = {name for name, kind in types.items() if kind.startswith("*") or name.endswith(STRIDES)}
    return Build(
        name=f"relative_attention {kernel} D={width} {dtype}{' dropout' if drops else ''}",
        kernel=function,
        architecture=architecture,
        types=types,
        constants={name: value for name, value in constants.items() if name in function.arg_names},
        aligned=frozenset(aligned if width % 16 == 0 else {name for name in aligned if not name.endswith(STRIDES)}),
        warps=tiles.warps,
        stages=tiles.stages,
        bound=Bound(
            SHARED_BYTES[architecture],
            spilled_bytes=SPILLED_BYTES.get((kernel, padded(width)), 0),
            needs_matrix_instructions=dtype != "fp32",
        ),
    )


def _type(name: str, dtype: str) -> str:
    if name == "WINDOW":
        return "*i64"
    if name in SUMS:
        return "*fp32"
    if name in ("scale", "dropout"):
        return "fp32"
    if name == "seed":
        return "i64"
    return f"*{dtype}" if name.isupper() and name not in ("L", "M", "T") else "i32"
