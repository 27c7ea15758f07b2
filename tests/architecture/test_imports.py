"""Import arrows: kernels, data_pipeline <- pretrain <- evals <- cluster <- launch.py; heavy packages in one place."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

MAY_IMPORT = {
    "kernels": set(),
    "data_pipeline": set(),
    "pretrain": {"kernels", "data_pipeline"},
    "evals": {"kernels", "data_pipeline", "pretrain"},
    "cluster": {"kernels", "data_pipeline", "pretrain", "evals"},
}
ONLY_IN = {
    "triton": ["kernels/*.py", "kernels/*/triton*.py"],
    "deepspeed": ["pretrain/engines/deepspeed*.py"],
    "ray": ["cluster/*.py", "cluster/jobs/ray_jobs.py", "data_pipeline/prepare/ray_executor.py"],
}
SOURCES = [ROOT / "launch.py", *(p for package in MAY_IMPORT for p in sorted((ROOT / package).rglob("*.py")))]


def imported(source: str) -> Iterator[str]:
    """Every module named in an import statement, also inside functions."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield str(node.module)


def forbidden(path: Path, source: str) -> list[str]:
    """The imports of one file that break an arrow."""
    relative = path.relative_to(ROOT)
    package = relative.parts[0]
    broken = []
    for module in imported(source):
        top = module.partition(".")[0]
        if package in MAY_IMPORT and top in {*MAY_IMPORT, "launch"} - MAY_IMPORT[package] - {package}:
            broken.append(f"{relative} imports {module}")
        if top in ONLY_IN and not any(relative.match(pattern) for pattern in ONLY_IN[top]):
            broken.append(f"{relative} imports {module}, which belongs in {ONLY_IN[top]}")
    return broken


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_arrows_hold(path: Path) -> None:
    assert forbidden(path, path.read_text()) == []


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("data_pipeline/x.py", "import pretrain.run"),
        ("pretrain/x.py", "def f():\n    from evals import metric"),
        ("pretrain/models/x.py", "import deepspeed"),
        ("evals/x.py", "from ray import data"),
        ("pretrain/x.py", "import triton.language as tl"),
    ],
)
def test_a_broken_arrow_is_found(name: str, source: str) -> None:
    assert forbidden(ROOT / name, source)
