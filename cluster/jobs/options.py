"""Options of the verbs that place work on a cluster, and what they mean together."""

import os
import re
from pathlib import Path
from typing import Annotated, Any

import typer

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
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise BadInput(f"--env {name!r}: is no name of a variable: letters, digits and _, and no digit first")
        if not separator and name not in os.environ:
            raise BadInput(f"--env {name}: is not set in this environment; write --env {name}=VALUE")
        found[name] = value if separator else os.environ[name]
    return found
