"""Which builds of the kernels are shipped, with their bounds: see `kernels.aot`.

Head widths and dtypes of the paper's models in bfloat16, with dropout and in the other dtypes at width 64, where the
position term's gradient is recomputed; of the other routes what differs, at width 64 in bfloat16.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple, cast

from kernels.compiled import ARCHITECTURES, DTYPES, SHARED_BYTES, Bound, Build, matrix_instruction
from kernels.relative_attention import triton, triton_backward
from kernels.relative_attention.fused import padded
from kernels.relative_attention.tiles import Kernel, Route, Tiles, default_tiles


class Variant(NamedTuple):
    """What a kernel is compiled for."""

    width: int
    """Of a head."""
    dtype: str
    drops: bool = False
    route: Route = "recomputed"


VARIANTS: dict[Route, list[Variant]] = {
    "recomputed": [
        *(Variant(width, "bf16") for width in (41, 64, 80, 128)),
        *(Variant(width, "bf16", drops=True) for width in (64, 128)),
        Variant(64, "fp16"),
        Variant(64, "fp32"),
    ],
    "stored": [Variant(width, "bf16", route="stored") for width in (41, 64, 128)],
    "semi_fused": [Variant(width, "bf16", route="semi_fused") for width in (41, 64, 128)],
}

DIFFERENT: dict[Route, tuple[str, ...]] = {
    "recomputed": ("delta", "forward", "query_gradient", "key_gradient", "distance_gradient"),
    "stored": ("query_gradient",),
    "semi_fused": ("position", "forward", "query_gradient", "key_gradient"),
}
"""Kernels that a route compiles in a way of its own."""

SPILLED_BYTES: dict[tuple[str, int, str], dict[str, int]] = {
    ("forward", 41, "bf16"): {"sm_80": 96, "sm_90": 64},
    ("query_gradient", 80, "bf16"): {"sm_80": 256, "sm_90": 320},
    ("query_gradient", 128, "bf16"): {"sm_80": 320, "sm_90": 384, "gfx942": 64},
    ("forward", 128, "bf16"): {"sm_80": 64, "sm_90": 64},
    ("key_gradient", 128, "bf16"): {"sm_80": 64, "sm_90": 64, "gfx942": 128},
    ("key_gradient", 80, "bf16"): {"sm_80": 64, "sm_90": 64},
    ("distance_gradient", 41, "bf16"): {"sm_80": 96, "sm_90": 64},
    ("distance_gradient", 80, "bf16"): {"sm_80": 128, "sm_90": 128, "gfx942": 256},
    ("distance_gradient", 128, "bf16"): {"sm_80": 192, "sm_90": 192, "gfx942": 384},
    ("distance_gradient", 64, "fp32"): {"sm_80": 128, "sm_90": 128},
}
"""Allowed by (kernel, width, dtype) on an architecture; none where it is not here.

What Triton 3.6 and 3.9 spill at most, and some more for other versions. Accepted because smaller
tiles, which spill less, read every key twice as often, and those of 16 hardly give each warp of a program a product.
"""

SUMS = ("LOG_SUM", "DELTA", "DU", "DW", "DR")
STRIDES = ("_row", "_step", "_head")


def builds() -> Iterator[Build]:
    """For every architecture."""
    for architecture in ARCHITECTURES:
        for route, kernels in DIFFERENT.items():
            for kernel in kernels:
                for variant in VARIANTS[route]:
                    if kernel != "delta" or not variant.drops:
                        yield _build(kernel, variant, architecture)


def _build(kernel: str, variant: Variant, architecture: str) -> Build:
    function = getattr(triton, f"{kernel}_kernel", None) or getattr(triton_backward, f"{kernel}_kernel")
    width, dtype, stores = padded(variant.width), variant.dtype, variant.route != "recomputed"
    if kernel == "delta":
        tiles = Tiles(block=64, warps=4)  # as `fused` launches it
    else:
        tiles = default_tiles(cast(Kernel, kernel), width, DTYPES[dtype], architecture)
    instruction = None if kernel == "delta" else matrix_instruction(architecture, dtype, rows=tiles.block)
    constants: dict[str, Any] = {
        "BLOCK": tiles.block, "D": variant.width, "DP": width, "DROPS": variant.drops, "PRECISION": "ieee",
        "TERM": "matrix" if variant.route == "semi_fused" else "band", "STORES": stores,
    }  # fmt: skip
    types = {name: _type(name, dtype, stores=stores) for name in function.arg_names if name not in constants}
    return Build(
        name=_name(kernel, variant),
        kernel=function,
        architecture=architecture,
        types=types,
        constants={name: value for name, value in constants.items() if name in function.arg_names},
        aligned=frozenset(name for name, kind in types.items() if _is_aligned(name, kind, variant.width)),
        warps=tiles.warps,
        stages=tiles.stages,
        bound=Bound(
            SHARED_BYTES[architecture],
            spilled_bytes=SPILLED_BYTES.get((kernel, variant.width, dtype), {}).get(architecture, 0),
            matrix_instruction=instruction,
        ),
    )


def _name(kernel: str, variant: Variant) -> str:
    route = "" if variant.route == "recomputed" else f" {variant.route.replace('_', '-')}"
    return f"relative_attention {kernel} D={variant.width} {variant.dtype}{' dropout' if variant.drops else ''}{route}"


def _type(name: str, dtype: str, *, stores: bool) -> str:
    if name == "WINDOW":
        return "*i64"
    if name in SUMS or (name == "DQ" and stores):
        return "*fp32"
    if name in ("scale", "dropout"):
        return "fp32"
    if name == "seed":
        return "i64"
    return f"*{dtype}" if name.isupper() and name not in ("L", "M", "T") else "i32"


def _is_aligned(name: str, kind: str, width: int) -> bool:
    """Pointers always, strides where heads are so wide; `pitch` where the number of keys is."""
    return kind.startswith("*") or name == "pitch" or (name.endswith(STRIDES) and width % 16 == 0)
