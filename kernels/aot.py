"""Compile every shipped kernel for GPUs that are not here: `python -m kernels.aot [--only SUBSTRING]`.

Prints registers, spilled bytes, shared memory and matrix instructions of each, with the bounds that stand beside its
kernel. Exits with 1 where one is broken, with 2 where nothing is named as asked. Needs no GPU and no driver.
"""

import argparse
import io
import os
import re
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from importlib import import_module
from multiprocessing import get_context

from kernels.compiled import ARCHITECTURES, Build, Compiled, MatrixInstruction

MODULES = ("kernels.relative_attention", "kernels.linear_cross_entropy", "kernels.nearest_code")
"""Packages whose `builds` module lists what is shipped."""

OPCODES: dict[MatrixInstruction, str] = {"wgmma": "wgmma.mma_async.", "mma.sync": "mma.sync.", "v_mfma": "v_mfma_"}
"""How each kind begins in assembly."""

HEADER = (
    f"{'kernel':54} {'for':7} {'registers':>9} {'spilled B':>11} {'shared B':>15}  {'matrix instructions':24} "
    f"{'needed':8}  bound"
)


def all_builds() -> list[Build]:
    """Of all kernels, for all architectures."""
    return [build for name in MODULES for build in import_module(f"{name}.builds").builds()]


def label(build: Build) -> str:
    """What `--only` looks in."""
    return f"{build.name} {build.architecture}"


def compile_number(number: int) -> Compiled | str:
    """The build of this number, in a process that needs no GPU; or why it does not compile."""
    try:
        return compile_build(all_builds()[number])
    except Exception as error:  # of any of three compilers
        return f"does not compile: {type(error).__name__}: {' '.join(str(error).split())[-300:]}"


def compile_build(build: Build) -> Compiled:
    """By the compilers that Triton brings, each time anew: NVIDIA's assembler reports to its log alone."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    triton.knobs.compilation.always_compile = True
    triton.knobs.nvidia.dump_ptxas_log = True
    names = build.kernel.arg_names
    source = ASTSource(
        fn=build.kernel,
        signature={name: "constexpr" if name in build.constants else build.types[name] for name in names},
        constexprs=dict(build.constants),
        attrs={(place,): [["tt.divisibility", 16]] for place, name in enumerate(names) if name in build.aligned},
    )
    options = {"num_warps": build.warps, "num_stages": build.stages, "enable_fp_fusion": True}
    with redirect_stdout(io.StringIO()) as log:
        made = triton.compile(source, target=GPUTarget(*ARCHITECTURES[build.architecture]), options=options)
    assembly = made.asm["ptx" if "ptx" in made.asm else "amdgcn"]
    registers, spilled = _of_log(log.getvalue()) if "ptx" in made.asm else _of_amdgcn(assembly)
    counts = {kind: assembly.count(start) for kind, start in OPCODES.items()}
    return Compiled(registers, spilled, made.metadata.shared, counts)


def _of_log(said: str) -> tuple[int, int]:
    """Registers of a thread and bytes spilled, as NVIDIA's assembler says."""
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


def row(build: Build, compiled: Compiled | str, problems: list[str]) -> str:
    """Of the table."""
    bound, beginning = build.bound, f"{build.name:54} {build.architecture:7}"
    if isinstance(compiled, str):
        return f"{beginning} {compiled}"
    spilled = f"{compiled.spilled_bytes} of {bound.spilled_bytes}"
    shared = f"{compiled.shared_bytes} of {bound.shared_bytes}"
    kinds = " + ".join(f"{count} {kind}" for kind, count in compiled.matrix_instructions.items() if count)
    return (
        f"{beginning} {compiled.registers:9} {spilled:>11} {shared:>15}  {kinds or '-':24} "
        f"{bound.matrix_instruction or '-':8}  {'; '.join(problems) or 'met'}"
    )


def check(builds: Sequence[Build], only: str) -> int:
    """Compiles those whose label `only` is part of, and prints the table as they come; the exit status."""
    import triton

    numbers = [number for number, build in enumerate(builds) if all(word in label(build) for word in only.split())]
    if not numbers:
        print(f"no build's label has all words of {only!r} in it; one is {label(builds[0])!r}", file=sys.stderr)
        return 2
    started, broken = time.monotonic(), []
    print(HEADER, flush=True)
    with ProcessPoolExecutor(min(4, os.cpu_count() or 1), mp_context=get_context("spawn")) as pool:
        for number, compiled in zip(numbers, pool.map(compile_number, numbers), strict=True):
            build = builds[number]
            problems = [compiled] if isinstance(compiled, str) else build.bound.problems(compiled)
            print(row(build, compiled, problems), flush=True)
            broken += [f"{label(build)} {problem}" for problem in problems]
    seconds = time.monotonic() - started
    print(f"{len(numbers)} builds by Triton {triton.__version__} in {seconds:.0f} s, {len(broken)} bounds broken")
    for problem in broken:
        print(problem, file=sys.stderr)
    return 1 if broken else 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m kernels.aot", description=__doc__)
    parser.add_argument("--only", metavar="SUBSTRING", default="", help="words that a build's line must all have")
    asked = parser.parse_args(arguments)
    os.environ.pop("TRITON_INTERPRET", None)  # before the first kernel is defined
    return check(all_builds(), asked.only)


if __name__ == "__main__":
    sys.exit(main())
