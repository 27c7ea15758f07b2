"""The configuration of a standing Ray cluster on machines of your own, for `ray up`; jobs are submitted to it later.

Keys: https://docs.ray.io/en/latest/cluster/vms/references/ray-cluster-configuration.html, the token's way to the nodes:
https://docs.ray.io/en/latest/ray-security/token-auth.html.
"""

import re
from importlib.metadata import version
from typing import Any

from cluster.deployment.readable_yaml import dump
from cluster.deployment.request import WORD, DeploymentRequest, summary
from data_pipeline.config import BadInput

PORT = 6379
TOKEN_HERE = "~/.ray/auth_token"
"""Where Ray keeps it."""
TOKEN_THERE = "~/.segue-token-file"
VARIABLES = f"RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH={TOKEN_THERE} RAY_USAGE_STATS_ENABLED=0"
ENVIRONMENT = "~/segue-environment"
CONSTRAINTS = "~/segue-constraints.txt"
KEY_PATH = re.compile(r"(~|)(/[A-Za-z0-9._+@=-]+)+")


def config(request: DeploymentRequest) -> str:
    """The configuration's text, for `ray up`."""
    check(request)
    head, *others = request.hosts
    auth = {"ssh_user": request.ssh_user}
    if request.ssh_key is not None:
        auth["ssh_private_key"] = request.ssh_key
    values: dict[str, Any] = {
        "cluster_name": request.name,
        "max_workers": len(others),
        "provider": {"type": "local", "head_ip": head, "worker_ips": others},
        "auth": auth,
    }
    if request.image is not None:
        values["docker"] = docker(request)
    values |= {
        "file_mounts": {TOKEN_THERE: TOKEN_HERE, **({} if is_installed(request) else installed_files())},
        "setup_commands": [f"chmod 600 {TOKEN_THERE}", *([] if is_installed(request) else installation())],
        "head_start_ray_commands": [*before(request), head_command(request)],
        "worker_start_ray_commands": [*before(request), worker_command(request)],
    }
    return dump(values, comment=comment(request))


def check(request: DeploymentRequest) -> None:
    """Raise BadInput unless the machines are named, and fit the run."""
    if not request.hosts:
        raise BadInput("--host: give the address of each machine, once for each; the first becomes the head")
    for host in request.hosts:
        if not WORD.fullmatch(host):
            raise BadInput(f"--host {host!r}: must be an address or a name of a machine")
    if len(set(request.hosts)) != len(request.hosts):
        raise BadInput(f"--host {', '.join(request.hosts)}: a machine is given twice; give each once")
    if request.nodes > len(request.hosts):
        raise BadInput(
            f"--nodes {request.nodes}: there are {len(request.hosts)} machines (--host); give more, or use fewer nodes"
        )
    if request.ssh_user is None:
        raise BadInput("--ssh-user: `ray up` starts Ray on the machines over ssh; give the user's name there")
    if request.ssh_key is not None and not KEY_PATH.fullmatch(request.ssh_key):
        raise BadInput(f"--ssh-key {request.ssh_key!r}: must be the path of a private key, such as ~/.ssh/id_ed25519")
    if request.image is not None and request.setup:
        raise BadInput("--setup: with --image Segue is in the image; leave one of both out")


def comment(request: DeploymentRequest) -> list[str]:
    """What the file is and how it is used."""
    placed = f"--nodes {request.nodes} --workers-per-node {request.workers_per_node}"
    if request.accelerator is not None:
        placed += f" --accelerator {request.accelerator}"
    lines = [
        f"Segue, a Ray cluster of {len(request.hosts)} machines for {summary(request)};",
        "written by `segue submit --emit ray-cluster`. From the machine that you submit from:",
        "",
        f"    (umask 077; ray get-auth-token --generate >/dev/null)    # makes {TOKEN_HERE}, if there is none",
    ]
    if not is_installed(request):
        lines.append("    python -m pip wheel --no-deps --wheel-dir dist .    # in Segue's directory; so the rest")
    return [
        *lines,
        "    ray up THIS_FILE",
        "    ray dashboard THIS_FILE                     # a tunnel to the head's port 8265; leave it open",
        f"    RAY_AUTH_MODE=token segue submit RECIPE --address http://127.0.0.1:8265 --name {request.name} \\",
        f"        --storage {request.storage} {placed}",
        "    ray down THIS_FILE                          # when all is done",
        "",
        f"Every machine has {request.storage}, the same directory, and is used by no other Ray of {request.ssh_user}.",
    ]


def is_installed(request: DeploymentRequest) -> bool:
    """Whether Segue is on the machines already: in the image, or in the environment that --setup makes."""
    return request.image is not None or bool(request.setup)


def docker(request: DeploymentRequest) -> dict[str, Any]:
    return {
        "image": request.image,
        "container_name": "segue",
        "pull_before_run": True,
        "run_options": [f"--volume {request.storage}:{request.storage}", "--ulimit nofile=65536:65536"],
    }


def wheel() -> str:
    return f"segue-{version('segue')}-py3-none-any.whl"


def installed_files() -> dict[str, str]:
    """Remote path -> path here: Segue itself, and the versions that it is tested with."""
    return {f"~/{wheel()}": f"dist/{wheel()}", CONSTRAINTS: "constraints.txt"}


def installation() -> list[str]:
    python = f"{ENVIRONMENT}/bin/python"
    return [
        f"test -x {python} || python3 -m venv {ENVIRONMENT}",
        f"{python} -m pip install --quiet --constraint {CONSTRAINTS} --force-reinstall --no-deps ~/{wheel()}",
        f"{python} -m pip install --quiet --constraint {CONSTRAINTS} ~/{wheel()}",
    ]


def before(request: DeploymentRequest) -> list[str]:
    """`ray up` may be called again: what it started before ends first."""
    return [f"{environment(request)}ray stop"]


def head_command(request: DeploymentRequest) -> str:
    """The dashboard, through which jobs are submitted, is on loopback: it is reached by a tunnel."""
    return (
        f"{environment(request)}{VARIABLES} "
        f"RAY_JOB_STOP_WAIT_TIME_S={request.notice} ray start --head --port={PORT} --dashboard-host=127.0.0.1 "
        "--autoscaling-config=~/ray_bootstrap_config.yaml"
    )


def worker_command(request: DeploymentRequest) -> str:
    return f"{environment(request)}{VARIABLES} ray start --address=$RAY_HEAD_IP:{PORT}"


def environment(request: DeploymentRequest) -> str:
    """What makes `ray` available, before a command."""
    if request.image is not None:
        return ""
    lines = request.setup or (f"source {ENVIRONMENT}/bin/activate",)
    return "".join(f"{line} && " for line in lines)
