"""Which builds of the kernels are shipped, with their bounds: see `kernels.aot`."""

from collections.abc import Iterator

from kernels.compiled import ARCHITECTURES, DTYPES, SHARED_BYTES, Bound, Build, matrix_instruction
from kernels.linear_cross_entropy import triton
from kernels.linear_cross_entropy.triton import tiles_for

KERNELS = ("forward", "error", "hidden_gradient", "weight_gradient")
WIDTHS = (1024, 410, 64, 16)
"""Of Transformer-XL large (a head and two tails) and base on WikiText-103."""

SPILLED_BYTES = {("error", 1024, "bf16", "sm_80"): 32}
"""Allowed by (kernel, width, dtype, architecture); none where it is not here.

Three registers more than the 255 of a thread, by Triton 3.6 and 3.9; smaller tiles would read the weights more often.
"""


def builds() -> Iterator[Build]:
    """For every architecture."""
    for architecture in ARCHITECTURES:
        for kernel in KERNELS:
            for width in WIDTHS:
                yield _build(kernel, width, "bf16", architecture)
            yield _build(kernel, 1024, "fp32", architecture)
        yield _build("error", 1024, "bf16", architecture, sparse=False)


def _build(kernel: str, width: int, dtype: str, architecture: str, *, sparse: bool = True) -> Build:
    function, tiles = getattr(triton, f"{kernel}_kernel"), tiles_for(DTYPES[dtype])
    constants = {
        "W": width, "ROWS": tiles.rows, "COLUMNS": tiles.columns,
        "WIDTH": min(tiles.width, max(16, width)), "BIASED": True,
        "PRECISION": "ieee", "SPARSE": sparse,
    }  # fmt: skip
    types = {name: _type(name, dtype) for name in function.arg_names if name not in constants}
    return Build(
        name=f"linear_cross_entropy {kernel} W={width} {dtype}{'' if sparse else ' dense'}",
        kernel=function,
        architecture=architecture,
        types=types,
        constants={name: value for name, value in constants.items() if name in function.arg_names},
        aligned=frozenset(
            name for name, kind in types.items() if kind.startswith("*") or (name.endswith("_step") and width % 16 == 0)
        ),
        warps=tiles.warps,
        stages=tiles.stages,
        bound=Bound(
            SHARED_BYTES[architecture],
            spilled_bytes=SPILLED_BYTES.get((kernel, width, dtype, architecture), 0),
            matrix_instruction=matrix_instruction(architecture, dtype, rows=tiles.rows),
        ),
    )


def _type(name: str, dtype: str) -> str:
    if name == "LABELS":
        return "*i64"
    if name in ("LOG_SUM", "LABEL_LOGIT", "FACTOR", "SUM"):
        return "*fp32"
    return f"*{dtype}" if name.isupper() else "i32"
