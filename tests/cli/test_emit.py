"""`submit --emit` on the command line: the file on standard output, and what does not go together."""

from pathlib import Path

import pytest
import yaml

from tests.cli.command_line import Forks

TINY = "tiny_transformer_xl"
FILE = ("--storage", "/shared")


def test_a_script_for_slurm_runs_the_recipe_as_given(segue: Forks, tmp_path: Path) -> None:
    shape = ("--nodes", "2", "--workers-per-node", "1", "--time-limit", "1:00:00")
    ended = segue.run("submit", TINY, "steps=7", "--emit", "slurm", *FILE, *shape, cwd=tmp_path)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("#!/bin/bash\n")
    for line in ("#SBATCH --nodes=2", "#SBATCH --time=1:00:00", "storage=/shared", "steps: 7"):
        assert f"\n{line}" in ended.out
    assert list(tmp_path.iterdir()) == [], "nothing was handed over or written"


def test_a_manifest_for_kubernetes_is_yaml(segue: Forks, tmp_path: Path) -> None:
    options = ("--workers", "2", "--image", "registry.example.org/segue:1", "--claim", "shared", "--name", "mine")
    ended = segue.run("submit", TINY, "--emit", "kuberay", *FILE, *options, cwd=tmp_path)
    assert ended.code == 0, ended
    assert "RayJob" in [document["kind"] for document in yaml.safe_load_all(ended.out)]


def test_workers_of_a_run_on_processors_ask_for_no_gpu(segue: Forks, tmp_path: Path) -> None:
    cpu = segue.run("submit", TINY, "engine.device=cpu", "--emit", "slurm", *FILE, cwd=tmp_path)
    assert "on processors" in cpu.out.splitlines()[1]
    gpu = segue.run("submit", TINY, "engine.device=cuda", "--emit", "slurm", *FILE, cwd=tmp_path)
    assert "one GPU each" in gpu.out.splitlines()[1]


BAD = {
    "no storage": (["--emit", "slurm"], ["--emit slurm", "--storage DIR"]),
    "follows nothing": (["--emit", "slurm", *FILE, "--follow"], ["--follow", "prints a file"]),
    "an option of another form": (
        ["--emit", "slurm", *FILE, "--image", "x"],
        ["--image", "no effect with --emit slurm"],
    ),
    "an option of a file": (["--address", "local", "--partition", "gpu"], ["--partition", "give --emit"]),
    "workers that do not divide": (["--emit", "slurm", *FILE, "--workers", "3"], ["workers=3", "micro_batches=2"]),
    "no address": ([], ["--address", "SEGUE_ADDRESS"]),
}


@pytest.mark.parametrize(("arguments", "named"), BAD.values(), ids=BAD)
def test_bad_input(segue: Forks, tmp_path: Path, arguments: list[str], named: list[str]) -> None:
    ended = segue.run("submit", TINY, *arguments, cwd=tmp_path)
    assert ended.code == 2, ended
    for word in named:
        assert word in ended.one_message()
    assert ended.out == ""
