"""The verbs for jobs: submit, status, logs, cancel, list; `launch.py` has `resume` and `prepare`, which submit too."""

import json
import os
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from cluster.terminal import console, say

ADDRESS_HELP = "The jobs server of a Ray cluster (http://HEAD:8265), or `local`: this machine, without a cluster."
Address = Annotated[str, typer.Option(envvar="SEGUE_ADDRESS", help=ADDRESS_HELP, show_default=False)]
JobId = Annotated[str, typer.Argument(help="A job's id (`list` shows them).", metavar="ID", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Storage = Annotated[
    Path | None,
    typer.Option(
        help="The directory that all nodes share: relative paths of the recipe, and runs/NAME, begin there. The "
        "current one, if not given and the address is of this machine.",
        metavar="DIR",
        show_default=False,
    ),
]
Name = Annotated[str | None, typer.Option(help="Of the run; the recipe's, if not given.", show_default=False)]
Workers = Annotated[
    int | None, typer.Option(help="Wherever there is room; 1, if nothing is given.", show_default=False)
]
Nodes = Annotated[int | None, typer.Option(help="So many nodes, each with --workers-per-node.", show_default=False)]
WorkersPerNode = Annotated[int | None, typer.Option(help="On each node.", show_default=False)]
Accelerator = Annotated[
    str | None, typer.Option(help="Nodes of this accelerator only, as Ray names it: H100.", show_default=False)
]
Environment = Annotated[
    list[str] | None,
    typer.Option("--env", help="A variable for the job: NAME=VALUE, or NAME of this environment. May be repeated."),
]
Join = Annotated[
    str | None,
    typer.Option(
        help="Compute on the nodes of a Ray cluster that this machine belongs to: auto, or its head's HOST:PORT.",
        metavar="auto|HOST:PORT",
        show_default=False,
    ),
]
JoinOrSubmit = Annotated[
    str | None,
    typer.Option(
        help="auto: compute on the Ray cluster that this machine belongs to. The URL of a cluster's jobs server, or "
        "`local`: hand it over as a job.",
        metavar="auto|URL|local",
        show_default=False,
    ),
]
SubmissionFile = Annotated[Path | None, typer.Option("--submission", hidden=True)]
CANCEL_SECONDS = 900.0
END_SECONDS = 10.0
"""A job whose log has ended is told to be over so soon after it."""
PANEL = "With --emit"


class EmitForm(StrEnum):
    slurm = "slurm"
    kuberay = "kuberay"
    ray_cluster = "ray-cluster"


def shape_of(workers: int | None, nodes: int | None, workers_per_node: int | None, accelerator: str | None) -> Any:
    """The shape that the options ask for, or None where they ask for nothing; raises BadInput where they clash."""
    from cluster.topology import Shape
    from data_pipeline.config import BadInput

    if nodes is not None or workers_per_node is not None:
        if workers is not None:
            raise BadInput("--workers: either so many wherever there is room, or --nodes with --workers-per-node")
        if nodes is None:
            raise BadInput("--workers-per-node: say on how many nodes: --nodes N")
        return Shape.of_nodes(nodes, 1 if workers_per_node is None else workers_per_node, accelerator)
    if workers is None and accelerator is None:
        return None
    return Shape(1 if workers is None else workers, accelerator=accelerator)


def as_job(address: str | None, name: str | None = None, storage: Path | None = None) -> bool:
    """Whether an address is one to hand a job over to; raises BadInput for options that only a job has."""
    from cluster.terminal import refuse_options

    if address is not None and (address == "local" or "://" in address):
        return True
    refuse_options({"--name": name, "--storage": storage}, "is for jobs: give --address URL, or `local`, too")
    return False


def joined(address: str | None, nodes: int | None) -> str | None:
    """The address of a cluster to join; raises BadInput for one that jobs are handed over to, and for none where more
    nodes than this one are asked for."""
    from data_pipeline.config import BadInput

    if address is None and nodes is not None and nodes > 1:
        raise BadInput(
            f"--nodes {nodes}: without --address the run has this machine alone; give its cluster's, --address auto"
        )

    if address is not None and as_job(address):
        raise BadInput(
            f"--address {address}: `train` computes here, on the cluster that this machine belongs to (--address "
            "auto); to hand the run over as a job, use `submit`"
        )
    return address


def environment_of(given: list[str] | None) -> dict[str, str]:
    """By name, from NAME=VALUE or NAME; raises BadInput for a name that is not set here."""
    from data_pipeline.config import BadInput

    found = {}
    for entry in given or ():
        name, separator, value = entry.partition("=")
        if not separator and name not in os.environ:
            raise BadInput(f"--env {name}: is not set in this environment; write --env {name}=VALUE")
        found[name] = value if separator else os.environ[name]
    return found


def show_submitted(submitted: Any, as_json: bool) -> None:
    """What was handed over, and where to look."""
    from cluster.tables import bytes_text

    submission, package = submitted.submission, submitted.package
    if as_json:
        more = {"code_bytes": package.num_bytes, "code_files": package.files, "unchecked": submitted.unchecked}
        print(json.dumps({**asdict(submission), **more}, indent=2))
        return
    state = f"commit {submission.commit[:12]}" if submission.commit else "no git checkout"
    dirty = " with changes that are not committed" if submission.dirty else ""
    say(f"job        {submission.id}")
    if submission.run:
        say(f"run        {submission.run}")
    say(f"code       {package.files} files, {bytes_text(package.num_bytes)}: {state}{dirty}")
    if submitted.unchecked:
        say(f"unchecked  {submitted.unchecked}")
    say(f"follow it with `logs {submission.id} --follow`, stop it with `cancel {submission.id}`")


def follow_to_end(address: str, job: str) -> None:
    """Print the job's log as it comes; ends this process with the job's exit code."""
    from cluster.jobs.submit import open_jobs, wait_until_over
    from data_pipeline.config import GaveUp

    jobs = open_jobs(address)
    for piece in jobs.follow(job):
        print(piece, end="", flush=True)
    state = wait_until_over(jobs, job, END_SECONDS)
    if not state.is_over:
        raise GaveUp(f"job {job}: its log ends, and it is {state.state} still; `logs {job} --follow` goes on with it")
    if state.ended_with:
        raise typer.Exit(state.ended_with)


def submit(
    recipe: Annotated[
        str, typer.Argument(help="A recipe's name (`recipes` lists them) or a YAML file.", show_default=False)
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Changes, such as steps=100 model.num_layers=12.", metavar="[KEY=VALUE]..."),
    ] = None,
    address: Annotated[str | None, typer.Option(envvar="SEGUE_ADDRESS", help=ADDRESS_HELP, show_default=False)] = None,
    workers: Workers = None,
    nodes: Nodes = None,
    workers_per_node: WorkersPerNode = None,
    accelerator: Accelerator = None,
    name: Name = None,
    storage: Storage = None,
    environment: Environment = None,
    follow: Annotated[bool, typer.Option("--follow", help="Print its log; the exit code is the job's.")] = False,
    as_json: Json = False,
    emit: Annotated[
        EmitForm | None,
        typer.Option(help="Print a deployment file instead, to be read and handed over by you.", show_default=False),
    ] = None,
    gpus_per_worker: Annotated[
        int | None, typer.Option(help="1, or 0: on processors.", rich_help_panel=PANEL, show_default=False)
    ] = None,
    cpus_per_worker: Annotated[int | None, typer.Option(rich_help_panel=PANEL, show_default=False)] = None,
    memory_per_worker: Annotated[
        int | None, typer.Option(help="In GiB.", rich_help_panel=PANEL, show_default=False)
    ] = None,
    time_limit: Annotated[
        str | None, typer.Option(help="[DAYS-]HOURS:MINUTES:SECONDS.", rich_help_panel=PANEL, show_default=False)
    ] = None,
    notice: Annotated[
        int | None,
        typer.Option(
            help="Seconds in which a run that has to stop can save.", rich_help_panel=PANEL, show_default=False
        ),
    ] = None,
    setup: Annotated[
        list[str] | None,
        typer.Option(
            help="A line of shell that makes `segue` available on a node. May be repeated.", rich_help_panel=PANEL
        ),
    ] = None,
    image: Annotated[
        str | None, typer.Option(help="Of containers with Segue.", rich_help_panel=PANEL, show_default=False)
    ] = None,
    partition: Annotated[str | None, typer.Option(rich_help_panel=PANEL, show_default=False)] = None,
    account: Annotated[str | None, typer.Option(rich_help_panel=PANEL, show_default=False)] = None,
    interface: Annotated[
        str | None,
        typer.Option(help="Of the network between the nodes, such as ib0.", rich_help_panel=PANEL, show_default=False),
    ] = None,
    claim: Annotated[
        str | None,
        typer.Option(
            help="The PersistentVolumeClaim that is mounted at --storage.", rich_help_panel=PANEL, show_default=False
        ),
    ] = None,
    node_selector: Annotated[
        list[str] | None, typer.Option(help="KEY=VALUE of workers' nodes. May be repeated.", rich_help_panel=PANEL)
    ] = None,
    retries: Annotated[
        int | None, typer.Option(help="Of a run that failed.", rich_help_panel=PANEL, show_default=False)
    ] = None,
    host: Annotated[
        list[str] | None,
        typer.Option(help="An address; the first is the head's. Repeat it.", rich_help_panel=PANEL),
    ] = None,
    ssh_user: Annotated[str | None, typer.Option(rich_help_panel=PANEL, show_default=False)] = None,
    ssh_key: Annotated[
        str | None, typer.Option(help="The path of a private key.", rich_help_panel=PANEL, show_default=False)
    ] = None,
) -> None:
    """Hand a run to a cluster, which starts it, or goes on with the run of this name where it is there already."""
    from cluster.terminal import refuse_options
    from data_pipeline.config import BadInput
    from pretrain.experiment import load_experiment

    of_file: dict[str, Any] = {
        "gpus_per_worker": gpus_per_worker,
        "cpus_per_worker": cpus_per_worker,
        "memory_per_worker": memory_per_worker,
        "time_limit": time_limit,
        "notice": notice,
        "setup": tuple(setup) if setup else None,
        "image": image,
        "partition": partition,
        "account": account,
        "interface": interface,
        "claim": claim,
        "node_selector": tuple(node_selector) if node_selector else None,
        "retries": retries,
        "hosts": tuple(host) if host else None,
        "ssh_user": ssh_user,
        "ssh_key": ssh_key,
    }
    shape = shape_of(workers, nodes, workers_per_node, accelerator)
    if emit is not None:
        refuse_options(
            {"--env": environment, "--follow": follow or None, "--json": as_json or None},
            f"is for jobs that are handed over, and --emit {emit.value} prints a file",
        )
        print(
            deployment_file(emit.value, load_experiment(recipe, overrides or ()), name, storage, shape, of_file), end=""
        )
        return
    from cluster.deployment.request import option
    from cluster.jobs.submit import Place, submit_training

    refuse_options(
        {option(field): value for field, value in of_file.items()}, "is for a deployment file: give --emit, too"
    )
    if address is None:
        raise BadInput("--address: give the URL of a cluster's jobs server, or `local`; or set SEGUE_ADDRESS")
    place = Place(address, storage, name, shape, environment_of(environment))
    submitted = submit_training(load_experiment(recipe, overrides or ()), place)
    show_submitted(submitted, as_json)
    if follow:
        follow_to_end(address, submitted.submission.id)


def deployment_file(
    form: str, experiment: Any, name: str | None, storage: Path | None, shape: Any, of_file: dict[str, Any]
) -> str:
    """The text of a file for Slurm, Kubernetes or `ray up`."""
    from cluster.deployment.emit import emit
    from cluster.deployment.request import DeploymentRequest
    from cluster.topology import ANYWHERE
    from data_pipeline.config import BadInput
    from pretrain import config
    from pretrain.group import check_divides

    shape = shape or ANYWHERE
    if storage is None:
        raise BadInput(f"--emit {form}: say which directory the nodes share: --storage DIR, as they call it")
    check_divides(shape.workers, experiment.batch.micro_batches)
    per_node = shape.per_node or shape.workers
    if experiment.engine.device == "cpu" and of_file["gpus_per_worker"] is None:
        of_file["gpus_per_worker"] = 0
    request = DeploymentRequest(
        recipe=config.dump(experiment),
        name=name or experiment.name,
        storage=str(storage),
        nodes=shape.workers // per_node,
        workers_per_node=per_node,
        accelerator=shape.accelerator,
        **{field: value for field, value in of_file.items() if value is not None},
    )
    return emit(form, request)  # type: ignore[arg-type]


def status(
    job: Annotated[
        str | None, typer.Argument(help="A job's id; all jobs, if not given.", metavar="[ID]", show_default=False)
    ] = None,
    *,
    address: Address,
    as_json: Json = False,
) -> None:
    """How a job goes: its state, step and loss, and what is wrong with it."""
    from cluster.jobs.show import job_lines, job_values
    from cluster.jobs.submit import open_jobs

    if job is None:
        list_jobs(address=address, as_json=as_json)
        return
    jobs = open_jobs(address)
    values = job_values(jobs, jobs.get(job))
    if as_json:
        print(json.dumps(values, indent=2))
        return
    for line in job_lines(values):
        say(line)


def logs(
    job: JobId,
    address: Address,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the job is over; the exit code is the job's.")
    ] = False,
) -> None:
    """What a job has printed."""
    from cluster.jobs.submit import open_jobs

    if follow:
        follow_to_end(address, job)
    else:
        print(open_jobs(address).log(job), end="")


def cancel(
    job: JobId,
    address: Address,
    wait: Annotated[bool, typer.Option(help="Until it has saved and stopped.")] = True,
    as_json: Json = False,
) -> None:
    """Let a job save and stop; `resume ID` goes on with it."""
    from cluster.jobs.show import job_values
    from cluster.jobs.submit import open_jobs, wait_until_over

    jobs = open_jobs(address)
    state = jobs.get(job)
    was_over = state.is_over
    if not was_over:
        jobs.stop(job)
        if wait:
            state = wait_until_over(jobs, job, CANCEL_SECONDS)
    if as_json:
        print(json.dumps(job_values(jobs, state), indent=2))
    elif was_over:
        say(f"job {job} is over already: {state.state}")
    elif not state.is_over:
        say(f"job {job} was asked to save and stop; `status {job}` tells when it has")
    else:
        again = (
            "`prepare`, given again," if state.submission.kind == "prepare" else f"`resume {job} --address {address}`"
        )
        say(f"job {job} is over: {state.state}; {again} goes on with it")


def list_jobs(address: Address, as_json: Json = False) -> None:
    """All jobs, the newest first."""
    from cluster.jobs.show import job_rows, jobs_table
    from cluster.jobs.submit import open_jobs

    states = open_jobs(address).all()
    if as_json:
        print(json.dumps(job_rows(states), indent=2))
    elif states:
        console().print(jobs_table(states))
    else:
        say(f"no jobs at {address}")


def add_verbs(app: typer.Typer) -> None:
    """Give the command line the verbs of this module."""
    for function in (submit, status, logs, cancel):
        app.command()(function)
    app.command("list")(list_jobs)
