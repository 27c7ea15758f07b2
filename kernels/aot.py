"""Compile every shipped kernel for GPUs that are not here: `python -m kernels.aot`.

Prints registers, spilled bytes, shared memory and matrix instructions of each, and exits with 1 where one breaks the
bound that stands beside its kernel. Needs no GPU and no driver; the interpreter must be off.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from importlib import import_module
from multiprocessing import get_context
from typing import Any

from kernels.compiled import ARCHITECTURES, Build

MODULES = ("kernels.relative_attention", "kernels.linear_cross_entropy", "kernels.nearest_code")
"""Packages whose `builds` module lists what is shipped."""

MATRIX_INSTRUCTIONS = ("wgmma.mma_async", "mma.sync", "v_mfma")


@dataclass(frozen=True)
class Compiled:
    """What the compilers said of one build."""

    name: str
    architecture: str
    registers: int
    spilled_bytes: int
    shared_bytes: int
    matrix_instructions: int
    problems: list[str] = field(default_factory=list)


def all_builds() -> list[Build]:
    """Of all kernels, for all architectures."""
    return [build for name in MODULES for build in import_module(f"{name}.builds").builds()]


def compile_build(number: int) -> Compiled:
    """The build of this number, in a process that needs no GPU."""
    build = all_builds()[number]
    try:
        compiled = _compile(build)
    except Exception as error:  # of any of three compilers
        return Compiled(build.name, build.architecture, 0, 0, 0, 0, [f"does not compile: {str(error)[:300]}"])
    return compiled


def _compile(build: Build) -> Compiled:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    backend, chip, warp = ARCHITECTURES[build.architecture]
    names = build.kernel.arg_names
    source = ASTSource(
        fn=build.kernel,
        signature={name: "constexpr" if name in build.constants else build.types[name] for name in names},
        constexprs=dict(build.constants),
        attrs={(place,): [["tt.divisibility", 16]] for place, name in enumerate(names) if name in build.aligned},
    )
    made = triton.compile(
        source, target=GPUTarget(backend, chip, warp), options={"num_warps": build.warps, "num_stages": build.stages}
    )
    registers, spilled = _of_ptx(made.asm["ptx"]) if backend == "cuda" else _of_amdgcn(made.asm["amdgcn"])
    text = made.asm["ptx"] if backend == "cuda" else made.asm["amdgcn"]
    instructions = sum(text.count(name) for name in MATRIX_INSTRUCTIONS)
    problems = build.bound.problems(spilled, made.metadata.shared, instructions)
    return Compiled(build.name, build.architecture, registers, spilled, made.metadata.shared, instructions, problems)


def _of_ptx(ptx: str) -> tuple[int, int]:
    """Registers of a thread and bytes spilled, as NVIDIA's assembler says."""
    from triton.backends.nvidia.compiler import get_ptxas

    target = re.search(r"\.target (sm_(\d+)a?)", ptx)
    assert target is not None
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(ptx)
        file.flush()
        command = [
            get_ptxas(int(target[2])).path,
            "-v",
            "--regAllocOptLevel=2",
            f"--gpu-name={target[1]}",
            file.name,
            "-o",
            os.devnull,
        ]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    spilled, used = re.search(r"(\d+) bytes spill stores", said), re.search(r"Used (\d+) registers", said)
    assert spilled is not None, said
    assert used is not None, said
    return int(used[1]), int(spilled[1])


def _of_amdgcn(text: str) -> tuple[int, int]:
    """Vector registers of a lane and bytes spilled, as the metadata of AMD's assembly say."""
    used, spilled = re.search(r"\.vgpr_count:\s*(\d+)", text), re.search(r"\.vgpr_spill_count:\s*(\d+)", text)
    assert used is not None
    assert spilled is not None
    return int(used[1]), 4 * int(spilled[1])


def lines(found: Iterable[Compiled]) -> Iterator[str]:
    """A table."""
    yield f"{'kernel':58} {'for':7} {'registers':>9} {'spilled B':>9} {'shared B':>8} {'matrix':>6}  bound"
    for one in found:
        verdict = "; ".join(one.problems) or "met"
        yield (
            f"{one.name:58} {one.architecture:7} {one.registers:9} {one.spilled_bytes:9} {one.shared_bytes:8} "
            f"{one.matrix_instructions:6}  {verdict}"
        )


def main() -> int:
    os.environ.pop("TRITON_INTERPRET", None)
    os.environ["TRITON_DEFAULT_FP_FUSION"] = "1"
    numbers: Any = range(len(all_builds()))
    with ProcessPoolExecutor(min(4, os.cpu_count() or 1), mp_context=get_context("spawn")) as pool:
        found = list(pool.map(compile_build, numbers))
    for line in lines(found):
        print(line)
    broken = [one for one in found if one.problems]
    print(f"{len(found)} builds, {len(broken)} of which break their bound")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
