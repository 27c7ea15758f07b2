"""A batch script for Slurm: directives, settings and the recipe of one job, then the same commands for all jobs.

Options of sbatch and srun: https://slurm.schedmd.com/sbatch.html, https://slurm.schedmd.com/srun.html. On several nodes
the script starts Ray with srun; on one node `segue train` starts its own, on loopback.
"""

import shlex
from pathlib import Path

from cluster.deployment.request import DeploymentRequest, summary, training_command
from cluster.ray_session import OBJECT_STORE_BYTES
from data_pipeline.config import BadInput

SCRIPTS = Path(__file__).parent / "scripts"
JOIN_SECONDS = 600
"""The nodes of a large allocation do not start at the same moment."""
RECIPE_END = "END_OF_RECIPE"
RECIPE = "$job_files/recipe.yaml"


def script(request: DeploymentRequest) -> str:
    """The script's text, for `sbatch`."""
    if RECIPE_END in request.recipe.splitlines():
        raise BadInput(f"the recipe has a line {RECIPE_END}, which ends it in the script; leave that line out")
    parts = [header(request), settings(request), recipe_function(request), (SCRIPTS / "begin.sh").read_text()]
    if request.nodes > 1:
        parts.append((SCRIPTS / "ray.sh").read_text())
    return "".join([*parts, train_array(request), (SCRIPTS / "train.sh").read_text()])


def header(request: DeploymentRequest) -> str:
    """What the file is and how it is used, then the directives."""
    lines = [
        "#!/bin/bash",
        f"# Segue, {summary(request)}; written by `segue submit --emit slurm`.",
        "#",
        f"#     mkdir -p {request.storage}/logs    # sbatch does not, and a job without its log dies in silence",
        "#     sbatch THIS_FILE",
        "#     scancel --batch --signal=TERM JOB_ID    # saves, then stops",
        "#",
        "# Submitted again, the script carries on with the run. Before the time limit it saves and goes back into the",
        "# queue by itself. An option of sbatch's command line takes the place of a directive.",
        *(f"#SBATCH --{name}" for name in directives(request)),
    ]
    return "\n".join(lines) + "\n\n"


def directives(request: DeploymentRequest) -> list[str]:
    """The options of sbatch, without dashes."""
    workers = request.workers_per_node
    found = [
        f"job-name={request.name}",
        f"nodes={request.nodes}",
        "ntasks-per-node=1",
        f"cpus-per-task={workers * request.cpus_per_worker}",
    ]
    if request.gpus_per_worker:
        kind = f"{request.accelerator.lower()}:" if request.accelerator else ""
        found.append(f"gpus-per-node={kind}{workers}")
    if request.memory_per_worker is not None:
        found.append(f"mem={workers * request.memory_per_worker}G")
    for name, value in (("time", request.time_limit), ("partition", request.partition), ("account", request.account)):
        if value is not None:
            found.append(f"{name}={value}")
    found += [
        f"output={request.storage}/logs/{request.name}-%j.log",
        "open-mode=append",
        f"chdir={request.storage}",
        "export=NONE",
        "requeue",
        f"signal=B:USR1@{request.notice}",
    ]
    return [*found, "no-kill"] if request.nodes > 1 else found


def settings(request: DeploymentRequest) -> str:
    """All that the commands below depend on, and the environment on every node."""
    lines = ["set -eo pipefail"]
    if request.nodes > 1:
        lines += [
            f"storage={request.storage}",
            f"gpus_per_node={request.workers_per_node * request.gpus_per_worker}",
            f"interface={request.interface or ''} # between the nodes; empty: as the first node's name tells",
            f"join_seconds={JOIN_SECONDS} # in which all nodes have to be there",
            f"object_store_bytes={OBJECT_STORE_BYTES} # Ray's least: workers send each other nothing through it",
        ]
    environment = request.setup or (": # such as: module load python/3.11; source /shared/venv/bin/activate",)
    return "\n".join([*lines, "", "# What makes `segue` and `ray` available, on every node.", *environment, ""]) + "\n"


def recipe_function(request: DeploymentRequest) -> str:
    """The recipe, as the output of a function."""
    return f"recipe() {{\n  cat <<'{RECIPE_END}'\n{request.recipe.rstrip()}\n{RECIPE_END}\n}}\n\n"


def train_array(request: DeploymentRequest) -> str:
    """The command line of the training."""
    words = training_command(request, RECIPE)
    if request.nodes == 1:
        placed = words.index("--address")
        words = [*words[:placed], "--carry-on", "--workers", str(request.workers_per_node)]
    quoted = [f'"{word}"' if word == RECIPE else shlex.quote(word) for word in words]
    return f"\ntrain=({' '.join(quoted)})\n"
