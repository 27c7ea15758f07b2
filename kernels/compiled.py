"""What is shipped of a kernel: with which types and constants it is compiled, and what the result must keep to."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch

ARCHITECTURES: dict[str, tuple[str, int | str, int]] = {
    "sm_80": ("cuda", 80, 32),
    "sm_90": ("cuda", 90, 32),
    "gfx942": ("hip", "gfx942", 64),
}
"""A100, H100 and H200, MI300: Triton's backend, its name of the chip, lanes of a warp."""

SHARED_BYTES = {"sm_80": 163 * 1024, "sm_90": 227 * 1024, "gfx942": 64 * 1024}
"""That one program can have (CUDA C++ Programming Guide, table of compute capabilities; AMD CDNA 3 ISA, LDS)."""

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
"""By Triton's names."""

MatrixInstruction = Literal["wgmma", "mma.sync", "v_mfma"]
"""`wgmma` is of a warp group, from sm_90 on; `mma.sync` of one warp; `v_mfma` is AMD's."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """What the compilers said of one build."""

    registers: int
    """Of a thread (AMD: vector registers of a lane)."""
    spilled_bytes: int
    """Of a thread, written to memory because registers do not suffice."""
    shared_bytes: int
    matrix_instructions: Mapping[MatrixInstruction, int]
    """How many of each kind stand in the code."""


@dataclass(frozen=True, slots=True)
class Bound:
    """What a build must keep to."""

    shared_bytes: int
    spilled_bytes: int = 0
    matrix_instruction: MatrixInstruction | None = None
    """A kind that must be there."""

    def problems(self, compiled: Compiled) -> list[str]:
        """Each rule that is broken, with what was found and what is allowed."""
        found = []
        if compiled.spilled_bytes > self.spilled_bytes:
            found.append(f"spills {compiled.spilled_bytes} bytes, {self.spilled_bytes} are allowed")
        if compiled.shared_bytes > self.shared_bytes:
            found.append(f"takes {compiled.shared_bytes} bytes of shared memory, there are {self.shared_bytes}")
        if self.matrix_instruction is not None and not compiled.matrix_instructions.get(self.matrix_instruction):
            found.append(f"has no {self.matrix_instruction}")
        return found


@dataclass(frozen=True)
class Build:
    """One kernel compiled one way for one architecture."""

    name: str
    kernel: Any
    architecture: str
    types: Mapping[str, str]
    """Of each argument that is no constant: `*bf16`, `i32`, ..."""
    constants: Mapping[str, Any]
    aligned: frozenset[str]
    """Arguments that 16 divides."""
    warps: int
    stages: int
    bound: Bound


def matrix_instruction(architecture: str, dtype: str, *, rows: int) -> MatrixInstruction | None:
    """Of the products of tiles with so many rows; None for float32 on NVIDIA's, which has no exact one.

    `wgmma` needs the 64 rows of a warp group (PTX ISA, wgmma.mma_async: shapes m64nNk16).
    """
    if architecture.startswith("gfx"):
        return "v_mfma"
    if dtype == "fp32":
        return None
    return "wgmma" if architecture == "sm_90" and rows >= 64 else "mma.sync"
