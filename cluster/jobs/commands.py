"""The verbs for jobs: submit, status, logs, cancel, list; `launch.py` has `resume` and `prepare`, which submit too."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from cluster.terminal import console, say

Address = Annotated[
    str,
    typer.Option(
        envvar="SEGUE_ADDRESS",
        help="The jobs server of a Ray cluster (http://HEAD:8265), or `local`: this machine, without a cluster.",
        show_default=False,
    ),
]
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


def joined(address: str | None) -> str | None:
    """The address of a cluster to join; raises BadInput for one that jobs are handed over to."""
    from data_pipeline.config import BadInput

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
    from cluster.jobs.submit import open_jobs

    jobs = open_jobs(address)
    for piece in jobs.follow(job):
        print(piece, end="", flush=True)
    state = jobs.get(job)
    if state.exit_code:
        raise typer.Exit(state.exit_code)
    if state.state in ("failed", "lost"):
        raise typer.Exit(1)


def submit(
    recipe: Annotated[
        str, typer.Argument(help="A recipe's name (`recipes` lists them) or a YAML file.", show_default=False)
    ],
    address: Address,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Changes, such as steps=100 model.num_layers=12.", metavar="[KEY=VALUE]..."),
    ] = None,
    workers: Workers = None,
    nodes: Nodes = None,
    workers_per_node: WorkersPerNode = None,
    accelerator: Accelerator = None,
    name: Name = None,
    storage: Storage = None,
    environment: Environment = None,
    follow: Annotated[bool, typer.Option("--follow", help="Print its log; the exit code is the job's.")] = False,
    as_json: Json = False,
) -> None:
    """Hand a run to a cluster, which starts it, or goes on with the run of this name where it is there already."""
    from cluster.jobs.submit import Place, submit_training
    from pretrain.experiment import load_experiment

    shape = shape_of(workers, nodes, workers_per_node, accelerator)
    place = Place(address, storage, name, shape, environment_of(environment))
    submitted = submit_training(load_experiment(recipe, overrides or ()), place)
    show_submitted(submitted, as_json)
    if follow:
        follow_to_end(address, submitted.submission.id)


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
        say(f"job {job} is over: {state.state}; `resume {job}` goes on with it")


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
