"""The verb `submit`: hand a run over to a cluster, or print a file with which its scheduler starts it."""

import json
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from cluster.jobs.follow import follow_to_end
from cluster.jobs.options import (
    ADDRESS_HELP,
    Accelerator,
    Environment,
    Json,
    Name,
    Nodes,
    Storage,
    Workers,
    WorkersPerNode,
    environment_of,
    shape_of,
)
from cluster.terminal import say

PANEL = "With --emit"


class EmitForm(StrEnum):
    slurm = "slurm"
    kuberay = "kuberay"
    ray_cluster = "ray-cluster"


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
    show_submitted(submitted, address, as_json)
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


def show_submitted(submitted: Any, address: str, as_json: bool) -> None:
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
    say(f"follow it    segue logs {submission.id} --follow --address {address}")
    say(f"stop it      segue cancel {submission.id} --address {address}")
