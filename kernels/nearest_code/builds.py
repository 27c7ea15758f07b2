"""Which builds of the kernel are shipped, with their bounds: see `kernels.aot`."""

from collections.abc import Iterator

from kernels.compiled import ARCHITECTURES, SHARED_BYTES, Bound, Build
from kernels.nearest_code.triton import Tiles, nearest_code_kernel

TYPES = {"NEAREST": "*i64", "HALF_SQUARE": "*fp32", "num_vectors": "i32", "num_codes": "i32"}


def builds() -> Iterator[Build]:
    """For every architecture."""
    tiles = Tiles()
    for architecture in ARCHITECTURES:
        for dtype in ("bf16", "fp32"):
            yield Build(
                name=f"nearest_code W=64 {dtype}",
                kernel=nearest_code_kernel,
                architecture=architecture,
                types=TYPES | {"X": f"*{dtype}", "CODES": f"*{dtype}", "x_step": "i32", "c_step": "i32"},
                constants={
                    "W": 64,
                    "VECTORS": tiles.vectors,
                    "TILE": tiles.codes,
                    "WIDTH": tiles.width,
                    "PRECISION": "ieee",
                },
                aligned=frozenset({"X", "CODES", "HALF_SQUARE", "NEAREST", "x_step", "c_step"}),
                warps=tiles.warps,
                stages=tiles.stages,
                bound=Bound(SHARED_BYTES[architecture], needs_matrix_instructions=dtype != "fp32"),
            )
