"""Ahead-of-time compilation, in processes of their own: here the kernels are the interpreter's."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from kernels import aot
from kernels.compiled import ARCHITECTURES, Bound, Compiled

ROOT = Path(__file__).parents[2]
KEPT = Compiled(registers=200, spilled_bytes=8, shared_bytes=1024, matrix_instructions={"wgmma": 4, "mma.sync": 0})

BREAK_ONE_BOUND = """
import os, sys
from dataclasses import replace
os.environ.pop("TRITON_INTERPRET", None)
from kernels import aot
from kernels.compiled import Bound
builds = [replace(build, bound=Bound(shared_bytes=0, matrix_instruction="v_mfma")) for build in aot.all_builds()]
sys.exit(aot.check(builds, "position D=64 bf16 semi-fused sm_80"))
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """With the interpreter's flag on, which the tool must turn off."""
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def test_forward_of_width_64_spills_nothing_on_any_architecture() -> None:
    done = run("-m", "kernels.aot", "--only", "attention forward D=64 bf16")
    assert done.returncode == 0, done.stdout + done.stderr
    header, *rows, summary = done.stdout.splitlines()
    for column in ("registers", "spilled B", "shared B", "matrix instructions", "bound"):
        assert column in header
    assert re.match(rf"{len(rows)} builds by Triton \S+ in \d+ s, 0 bounds broken", summary)
    kinds = {"sm_80": "mma.sync", "sm_90": "wgmma", "gfx942": "v_mfma"}
    assert kinds.keys() == ARCHITECTURES.keys()
    for architecture, kind in kinds.items():
        (plain,) = [row for row in rows if row.startswith("relative_attention forward D=64 bf16 ") and
                    row.split()[4] == architecture]  # fmt: skip
        found = re.search(rf" (\d+) +0 of 0 +(\d+) of (\d+) +.*\b[1-9]\d* {re.escape(kind)} .* met$", plain)
        assert found, plain
        registers, shared, available = map(int, found.groups())
        assert 0 < registers <= 512
        assert 0 < shared <= available


def test_a_broken_bound_is_named_and_fails() -> None:
    done = run("-c", BREAK_ONE_BOUND)
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(
        r"position D=64 bf16 semi-fused sm_80 takes \d+ bytes of shared memory, there are 0\n.*has no v_mfma",
        done.stderr,
    )


def test_a_name_that_no_build_has_is_an_error() -> None:
    done = run("-m", "kernels.aot", "--only", "sm_42")
    assert done.returncode == 2
    assert "'sm_42'" in done.stderr


def test_a_build_that_does_not_compile_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("no such\ninstruction")

    monkeypatch.setattr(aot, "all_builds", lambda: [None])
    monkeypatch.setattr(aot, "compile_build", fail)
    assert aot.compile_number(0) == "does not compile: RuntimeError: no such instruction"


def test_a_bound_that_is_kept_has_no_problems() -> None:
    assert Bound(shared_bytes=1024, spilled_bytes=8, matrix_instruction="wgmma").problems(KEPT) == []


@pytest.mark.parametrize(
    ("bound", "problem"),
    [
        (Bound(shared_bytes=1024), "spills 8 bytes, 0 are allowed"),
        (Bound(shared_bytes=1024, spilled_bytes=7), "spills 8 bytes, 7 are allowed"),
        (Bound(shared_bytes=1023, spilled_bytes=8), "takes 1024 bytes of shared memory, there are 1023"),
        (Bound(shared_bytes=1024, spilled_bytes=8, matrix_instruction="mma.sync"), "has no mma.sync"),
        (Bound(shared_bytes=1024, spilled_bytes=8, matrix_instruction="v_mfma"), "has no v_mfma"),
    ],
)
def test_each_broken_rule_is_told(bound: Bound, problem: str) -> None:
    assert bound.problems(KEPT) == [problem]
