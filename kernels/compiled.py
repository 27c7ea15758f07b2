"""What is shipped of a kernel: with which types and constants it is compiled, and what the result must keep to."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ARCHITECTURES: dict[str, tuple[str, int | str, int]] = {
    "sm_80": ("cuda", 80, 32),
    "sm_90": ("cuda", 90, 32),
    "gfx942": ("hip", "gfx942", 64),
}
"""A100, H100 and H200, MI300: Triton's backend, its name of the chip, lanes of a warp."""

SHARED_BYTES = {"sm_80": 163 * 1024, "sm_90": 227 * 1024, "gfx942": 64 * 1024}
"""That one program can have (CUDA C++ Programming Guide, table of compute capabilities; AMD CDNA 3 ISA, LDS)."""


@dataclass(frozen=True, slots=True)
class Bound:
    """What a build must keep to."""

    shared_bytes: int
    spilled_bytes: int = 0
    needs_matrix_instructions: bool = True

    def problems(self, spilled_bytes: int, shared_bytes: int, matrix_instructions: int) -> list[str]:
        found = []
        if spilled_bytes > self.spilled_bytes:
            found.append(f"spills {spilled_bytes} bytes, {self.spilled_bytes} are allowed")
        if shared_bytes > self.shared_bytes:
            found.append(f"takes {shared_bytes} bytes of shared memory, there are {self.shared_bytes}")
        if self.needs_matrix_instructions and not matrix_instructions:
            found.append("uses no matrix instruction")
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
