"""The verb `plan`: what a run needs on workers, or on accelerators of a kind."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console

from cluster.plan_tables import show_cluster_plan, show_plan
from cluster.terminal import refuse_options
from pretrain.accelerators import accelerator_named
from pretrain.experiment import Experiment
from pretrain.plan import plan, plan_cluster
from pretrain.plan.cluster import sizes_of

UTILISATION = 0.4
"""Where none is given: of H100s, Llama 3's pretraining reached 0.38 to 0.43 (Dubey et al. 2024,
https://arxiv.org/abs/2407.21783, table 4)."""
STORAGE_BANDWIDTH = 1.0
"""GB/s, where none is given."""


@dataclass(frozen=True, slots=True)
class OnAccelerators:
    """What was asked of accelerators; None or empty: not given."""

    accelerator: str | None = None
    accelerators: Sequence[str] = ()
    nodes: Sequence[str] = ()
    utilisation: float | None = None
    storage_bandwidth: float | None = None


def print_plan(
    experiment: Experiment, *, workers: Sequence[int], asked: OnAccelerators, as_json: bool, console: Console
) -> None:
    """Of accelerators where one is named, else of workers; as tables, or as JSON on standard output."""
    if asked.accelerator is None:
        _refuse_of_accelerators(asked)
        made = plan(experiment, workers or None)
        if as_json:
            print(json.dumps(made.to_json(), indent=2))
        else:
            show_plan(made, console)
        return
    refuse_options({"--workers": workers or None}, "is for no --accelerator; say --accelerators or --nodes instead")
    kind = accelerator_named(asked.accelerator)
    planned = plan_cluster(
        experiment,
        kind,
        sizes_of(kind, accelerators=asked.accelerators, nodes=asked.nodes),
        utilisation=UTILISATION if asked.utilisation is None else asked.utilisation,
        storage_bandwidth=1e9 * (STORAGE_BANDWIDTH if asked.storage_bandwidth is None else asked.storage_bandwidth),
    )
    if as_json:
        print(json.dumps(planned.to_json(), indent=2))
    else:
        show_cluster_plan(planned, console)


def _refuse_of_accelerators(asked: OnAccelerators) -> None:
    options = {
        "--accelerators": asked.accelerators or None,
        "--nodes": asked.nodes or None,
        "--utilisation": asked.utilisation,
        "--storage-bandwidth": asked.storage_bandwidth,
    }
    refuse_options(options, "is of accelerators; say of which kind with --accelerator, such as --accelerator h100")
