"""What is to be deployed, and the rules that hold for every form: safe names and paths, no secret, no idle option."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import yaml

from cluster.run_name import RUN_NAME
from data_pipeline.config import BadInput
from data_pipeline.redaction import redact, redact_values, redacted_keys

Form = Literal["slurm", "kuberay", "ray-cluster"]
FORMS: tuple[Form, ...] = get_args(Form)


@dataclass(frozen=True, kw_only=True)
class DeploymentRequest:
    """A run and where it is to be computed; `USED_BY` says which form reads which of the later fields."""

    recipe: str
    """The resolved experiment, as YAML text."""
    name: str
    """Of the run: its directory is STORAGE/runs/NAME."""
    storage: str
    """The directory that all nodes share, as they call it."""
    nodes: int = 1
    workers_per_node: int = 1
    gpus_per_worker: int = 1
    """1, or 0 for workers that compute on processors."""
    accelerator: str | None = None
    """Ray's name of the only accelerator that will do, such as H100."""

    cpus_per_worker: int = 4
    memory_per_worker: int | None = None
    """In GiB."""
    time_limit: str | None = None
    """[DAYS-]HOURS:MINUTES:SECONDS."""
    notice: int = 300
    """Seconds in which a run that has to stop can finish its step and save."""
    setup: tuple[str, ...] = ()
    """Lines of shell that make `segue` and `ray` available on a node, such as `source /shared/venv/bin/activate`."""
    image: str | None = None
    """Of containers in which Segue is installed."""

    partition: str | None = None
    account: str | None = None
    interface: str | None = None
    """Of the network between the nodes, such as ib0."""

    claim: str | None = None
    """The PersistentVolumeClaim that is mounted at `storage`."""
    node_selector: tuple[str, ...] = ()
    """KEY=VALUE labels of the nodes that workers may run on."""
    retries: int = 5
    """So often a run that failed is carried on with, before it is left as failed."""

    hosts: tuple[str, ...] = ()
    """Addresses; the first becomes the head, and computes too."""
    ssh_user: str | None = None
    ssh_key: str | None = None
    """The path of a private key."""


USED_BY: dict[str, tuple[Form, ...]] = {
    "cpus_per_worker": ("slurm", "kuberay"),
    "memory_per_worker": ("slurm", "kuberay"),
    "time_limit": ("slurm", "kuberay"),
    "setup": ("slurm", "ray-cluster"),
    "image": ("kuberay", "ray-cluster"),
    "partition": ("slurm",),
    "account": ("slurm",),
    "interface": ("slurm",),
    "claim": ("kuberay",),
    "node_selector": ("kuberay",),
    "retries": ("kuberay",),
    "hosts": ("ray-cluster",),
    "ssh_user": ("ray-cluster",),
    "ssh_key": ("ray-cluster",),
}
"""The forms that read a field; all others are read by every form."""

PATH = re.compile(r"/[A-Za-z0-9._+@=-]+(/[A-Za-z0-9._+@=-]+)*")
WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+=-]*")
"""What needs quoting neither in a shell nor in a directive of Slurm."""
TIME = re.compile(r"(?:(\d+)-)?(\d+):([0-5]\d):([0-5]\d)")
COUNTS = {
    "nodes": 1, "workers_per_node": 1, "cpus_per_worker": 1, "memory_per_worker": 1, "notice": 30, "retries": 0,
}  # fmt: skip
"""The least that a count may be."""
WORDS = ("accelerator", "image", "partition", "account", "interface", "claim", "ssh_user")


def check(request: DeploymentRequest, form: Form) -> None:
    """Raise BadInput for what no file of this form could carry."""
    refuse_idle(request, form)
    if not RUN_NAME.fullmatch(request.name):
        raise BadInput(
            f"--name {request.name!r}: must begin with a letter or digit and have only letters, digits and ._- after "
            "it, 63 at most; the run's directory and its job bear it"
        )
    if not PATH.fullmatch(request.storage) or ".." in request.storage.split("/"):
        raise BadInput(
            f"--storage {request.storage!r}: must be an absolute path of letters, digits and ._+@=- as the nodes call "
            "it, without `..`; such as /shared/segue"
        )
    for name, value in given(request):
        if name in COUNTS and value < COUNTS[name]:
            raise BadInput(f"{option(name)} {value}: must be {COUNTS[name]} or more")
        if name in WORDS and not WORD.fullmatch(value):
            raise BadInput(f"{option(name)} {value!r}: must be one word of letters, digits and ._:/@+=-")
    if request.gpus_per_worker not in (0, 1):
        raise BadInput(f"--gpus-per-worker {request.gpus_per_worker}: a worker computes on one GPU, or on none: 1 or 0")
    if request.accelerator is not None and request.gpus_per_worker == 0:
        raise BadInput(f"--accelerator {request.accelerator}: goes with --gpus-per-worker 1, not 0")
    if request.time_limit is not None and seconds_of(request.time_limit) <= 2 * request.notice:
        raise BadInput(
            f"--time-limit {request.time_limit}: must be more than twice --notice, {request.notice} s, or the run "
            "would hardly begin before it is told to stop"
        )
    check_lines(request)
    refuse_secrets(request)


def check_lines(request: DeploymentRequest) -> None:
    """Raise BadInput where a line of the environment is several."""
    for line in request.setup:
        if not line.strip() or any(character in line for character in "\n\r\0"):
            raise BadInput(f"--setup {line!r}: must be one line of shell; give the option once for each line")


def refuse_idle(request: DeploymentRequest, form: Form) -> None:
    """Raise BadInput for what was given and would have no effect."""
    idle = [name for name, _ in given(request) if form not in USED_BY.get(name, FORMS)]
    if idle:
        forms = " or ".join(f"--emit {other}" for other in USED_BY[idle[0]])
        raise BadInput(f"{option(idle[0])}: has no effect with --emit {form}, but with {forms}; leave it out")


def refuse_secrets(request: DeploymentRequest) -> None:
    """Raise BadInput that says where a secret is, and not what."""
    try:
        recipe = yaml.safe_load(request.recipe)
    except yaml.YAMLError as error:
        raise BadInput(f"the recipe is not valid YAML: {error}") from error
    if not isinstance(recipe, dict):
        raise BadInput(f"the recipe is a {type(recipe).__name__}; it must be a mapping of keys to values")
    keys = redacted_keys(redact_values(recipe))
    if keys:
        raise BadInput(
            f"recipe key {', '.join(keys)}: holds a secret, and a deployment file is kept and shared; keep it in a "
            "file or a variable of the nodes"
        )
    for name, value in given(request):
        if name != "recipe" and redact(str(value)) != str(value):
            raise BadInput(
                f"{option(name)}: holds a secret, and a deployment file is kept and shared; keep it in a file of the "
                "nodes, and name the file"
            )


def given(request: DeploymentRequest) -> Iterator[tuple[str, Any]]:
    """The fields whose value is not their default."""
    for field in fields(request):
        value = getattr(request, field.name)
        if value != field.default:
            yield field.name, value


def option(name: str) -> str:
    """A field as the command line calls it; of several, one.

    >>> option("node_selector"), option("hosts")
    ('--node-selector', '--host')
    """
    return "--" + {"hosts": "host"}.get(name, name).replace("_", "-")


def seconds_of(time_limit: str) -> int:
    """The seconds of [DAYS-]HOURS:MINUTES:SECONDS.

    >>> seconds_of("1-02:00:30")
    93630
    """
    found = TIME.fullmatch(time_limit)
    if found is None:
        raise BadInput(f"--time-limit {time_limit!r}: must be [DAYS-]HOURS:MINUTES:SECONDS, such as 1-12:00:00")
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def training_command(request: DeploymentRequest, recipe: str) -> list[str]:
    """The command line of every job, in whatever cluster: it begins the run, or carries on with it."""
    words = [
        "segue", "-C", request.storage, "train", recipe, "--run", f"runs/{request.name}", "--address", "auto",
        "--carry-on", "--nodes", str(request.nodes), "--workers-per-node", str(request.workers_per_node),
    ]  # fmt: skip
    return words if request.accelerator is None else [*words, "--accelerator", request.accelerator]


def summary(request: DeploymentRequest) -> str:
    """What is run on what, in a line for the head of a file."""
    nodes = f"{request.nodes} node" + ("s" if request.nodes > 1 else "")
    each = f"{request.workers_per_node} worker" + ("s" if request.workers_per_node > 1 else "")
    on = "one GPU each" if request.gpus_per_worker else "on processors"
    return f"run {request.name}: {nodes} with {each}{' each' if request.nodes > 1 else ''}, {on}"
