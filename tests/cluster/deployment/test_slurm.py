"""The batch script by what sbatch, srun and bash say of it; `test_slurm_run` runs it.

The options: https://slurm.schedmd.com/sbatch.html and https://slurm.schedmd.com/srun.html.
"""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.deployment import emit
from tests.cluster.deployment.requests import full, recipe

SHELLCHECK = str(Path(sys.executable).with_name("shellcheck"))
"""Installed with the tests, beside the Python that runs them."""

SBATCH = {
    "account": r"\S+",
    "chdir": r"/\S+",
    "cpus-per-task": r"\d+",
    "export": r"NONE",
    "gpus-per-node": r"([\w.-]+:)?\d+",
    "job-name": r"\S+",
    "mem": r"\d+[KMGT]?",
    "no-kill": r"",
    "nodes": r"\d+(-\d+)?",
    "ntasks-per-node": r"\d+",
    "open-mode": r"append|truncate",
    "output": r"/\S+",
    "partition": r"\S+",
    "requeue": r"",
    "signal": r"([RB]+:)?(\d+|[A-Z]+\d?)(@\d{1,5})?",
    "time": r"(\d+-)?\d+(:\d\d){2}",
}
"""Long options of sbatch with the values that Segue gives them; `signal` is [{R|B}:]<sig_num>[@sig_time]."""
SRUN = {
    "cpus-per-task", "exclude", "kill-on-bad-exit", "label", "no-kill", "nodelist", "nodes", "ntasks",
    "ntasks-per-node", "open-mode", "output", "overlap", "wait",
}  # fmt: skip
"""Long options of srun that Segue uses."""

MEANT = "SC1091,SC2016,SC2329"
"""Files of the site that are not here, variables for a shell on another node, a function that only traps call."""

VARIANTS: list[dict[str, Any]] = [
    {},
    {"nodes": 1},
    {"gpus_per_worker": 0, "accelerator": None, "time_limit": None, "memory_per_worker": None, "interface": None},
    {"partition": None, "account": None, "setup": ()},
]
variants = pytest.mark.parametrize("changes", VARIANTS)


def script(**changes: Any) -> str:
    return emit("slurm", full("slurm", **changes))


def directives(text: str) -> dict[str, str]:
    """By name; all are above the first command, where sbatch stops reading them."""
    lines = text.splitlines()
    first_command = next(number for number, line in enumerate(lines) if line and not line.startswith("#"))
    assert not any(line.startswith("#SBATCH") for line in lines[first_command:])
    found = [line.removeprefix("#SBATCH --") for line in lines if line.startswith("#SBATCH --")]
    return {name: value for name, _, value in (one.partition("=") for one in found)}


@variants
def test_directives_are_options_of_sbatch(changes: dict[str, Any]) -> None:
    found = directives(script(**changes))
    assert len(found) >= 10
    for name, value in found.items():
        assert name in SBATCH, name
        assert re.fullmatch(SBATCH[name], value), (name, value)


def test_directives_ask_for_what_was_asked_for() -> None:
    assert directives(script()) == {
        "job-name": "tiny_gpt",
        "nodes": "2",
        "ntasks-per-node": "1",
        "cpus-per-task": "48",
        "gpus-per-node": "h100:8",
        "mem": "800G",
        "time": "1-12:00:00",
        "partition": "gpu",
        "account": "physics",
        "output": "/shared/segue/logs/tiny_gpt-%j.log",
        "open-mode": "append",
        "chdir": "/shared/segue",
        "export": "NONE",
        "requeue": "",
        "signal": "B:USR1@300",
        "no-kill": "",
    }


@variants
def test_steps_have_options_of_srun(changes: dict[str, Any]) -> None:
    """Those of `ray start`, which follow it, are tried by running it."""
    text = script(**changes).replace("\\\n", " ")
    step = re.search(r"^step=\((.*?)\)$", text, re.MULTILINE | re.DOTALL)
    steps = re.findall(r"^\s*(?:timeout \d+ )?srun (.*?)(?: ray start .*)?$", text, re.MULTILINE)
    used = {name for line in [*steps, step[1] if step else ""] for name in re.findall(r"--([a-z-]+)", line)}
    assert used >= {"nodes", "ntasks", "overlap"}
    assert used <= SRUN


@variants
def test_bash_and_shellcheck_find_nothing(changes: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "job.sbatch"
    path.write_text(script(**changes))
    for command in (["bash", "-n"], [SHELLCHECK, "--shell=bash", f"--exclude={MEANT}"]):
        done = subprocess.run([*command, path], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_shellcheck_sees_a_planted_mistake(tmp_path: Path) -> None:
    path = tmp_path / "job.sbatch"
    path.write_text(script().replace('kill -s TERM "$driver"', "kill -s TERM $driver"))
    assert subprocess.run([SHELLCHECK, "--shell=bash", path], capture_output=True, check=False).returncode == 1


def test_the_recipe_is_in_it_word_for_word(tmp_path: Path) -> None:
    """Also one that means something to a shell."""
    hostile = yaml.safe_dump(yaml.safe_load(recipe()) | {"name": "$(touch x) `touch x` ${HOME} \\ ' \" !"})
    text = script(recipe=hostile)
    begin = text.index("recipe() {")
    shown = subprocess.run(
        ["bash", "-c", text[begin : text.index("\n}\n", begin) + 3] + "recipe"],
        capture_output=True, text=True, check=True, cwd=tmp_path,
    )  # fmt: skip
    assert yaml.safe_load(shown.stdout) == yaml.safe_load(hostile)
    assert list(tmp_path.iterdir()) == []


def test_the_training_is_begun_by_the_command_of_all_jobs() -> None:
    train = re.search(r"^train=\((.*)\)$", script(), re.MULTILINE)
    assert train is not None
    assert shlex.split(train[1]) == [
        "segue", "-C", "/shared/segue", "train", "$job_files/recipe.yaml", "--run", "runs/tiny_gpt", "--address",
        "auto", "--carry-on", "--nodes", "2", "--workers-per-node", "8", "--accelerator", "H100",
    ]  # fmt: skip


def test_on_one_node_segue_starts_its_own_ray() -> None:
    text = script(nodes=1)
    assert "ray start" not in text
    assert "no-kill" not in directives(text)
    assert "--run runs/tiny_gpt --carry-on --workers 8)\n" in text


def test_the_environment_is_there_before_unset_variables_are_errors() -> None:
    """Scripts of sites and of conda read variables that may not be set."""
    text = script()
    assert text.index("set -eo pipefail") < text.index("module load cuda/12.8") < text.index("\nset -u\n")
