"""The command of a job: what a shell makes of it is what was asked for, whatever names have in them."""

import shlex
import subprocess
from pathlib import Path

import pytest

from cluster.jobs.submit import _submission, placement_options
from cluster.topology import Shape

HOSTILE = "/shared/it's; touch harm $(touch harm) `touch harm` \"&\n#"


@pytest.mark.parametrize("kind", ["train", "resume", "prepare"])
def test_a_shell_runs_nothing_but_the_command(kind: str, tmp_path: Path) -> None:
    """`python` is one that writes down what it is given."""
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\nfor word in "$@"; do printf "%s\\0" "$word"; done > words\n')
    python.chmod(0o755)
    arguments = placement_options(Shape(2, accelerator=HOSTILE))
    made = _submission(kind, "mine", HOSTILE, None, "", arguments)  # type: ignore[arg-type]
    subprocess.run(["/bin/sh", "-c", made.command], cwd=tmp_path, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, check=True)
    words = (tmp_path / "words").read_text().split("\0")[:-1]
    subject = "runs/mine" if kind == "resume" else f"{tmp_path}/job/recipe.yaml"
    record = [] if kind == "prepare" else ["--submission", f"{tmp_path}/job/submission.json"]
    assert words == ["launch.py", "-C", HOSTILE, kind, subject, "--workers", "2", "--accelerator", HOSTILE, *record]
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    ("shape", "options"),
    [(Shape(3), "--workers 3"), (Shape.of_nodes(2, 4, "H100"), "--nodes 2 --workers-per-node 4 --accelerator H100")],
)
def test_options_ask_for_the_shape(shape: Shape, options: str) -> None:
    assert placement_options(shape) == shlex.split(options)
