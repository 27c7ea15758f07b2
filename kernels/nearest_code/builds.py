"""Which builds of the kernel are shipped, with their bounds: see `kernels.aot`."""

from collections.abc import Iterator

from kernels.compiled import ARCHITECTURES, DTYPES, SHARED_BYTES, Bound, Build, matrix_instruction
from kernels.nearest_code.triton import nearest_code_kernel, tiles_for

TYPES = {"NEAREST": "*i64", "HALF_SQUARE": "*fp32", "num_vectors": "i32", "num_codes": "i32"}


def builds() -> Iterator[Build]:
    """For every architecture."""
    for architecture in ARCHITECTURES:
        for dtype in ("bf16", "fp32"):
            tiles = tiles_for(DTYPES[dtype])
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
                bound=Bound(
                    SHARED_BYTES[architecture],
                    matrix_instruction=matrix_instruction(architecture, dtype, rows=tiles.vectors),
                ),
            )
