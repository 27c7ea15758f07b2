"""Requests that the tests of all forms share: each has whatever its form can carry."""

from dataclasses import replace
from typing import Any

from cluster.deployment import DeploymentRequest, Form
from pretrain import config
from pretrain.experiment import Experiment


def recipe(*overrides: str) -> str:
    return config.dump(config.load(Experiment, config.recipe_path("tiny_gpt"), overrides))


BASE = DeploymentRequest(
    recipe=recipe(), name="tiny_gpt", storage="/shared/segue", nodes=2, workers_per_node=8, accelerator="H100"
)
FULL: dict[Form, DeploymentRequest] = {
    "slurm": replace(
        BASE,
        cpus_per_worker=6,
        memory_per_worker=100,
        time_limit="1-12:00:00",
        setup=("module load cuda/12.8", 'source "/shared/my venv/bin/activate"'),
        partition="gpu",
        account="physics",
        interface="ib0",
    ),
    "kuberay": replace(
        BASE,
        memory_per_worker=100,
        time_limit="12:00:00",
        image="registry.example/segue:1",
        claim="shared-claim",
        node_selector=("nvidia.com/gpu.product=NVIDIA-H100-80GB-HBM3", "pool=training"),
        retries=9,
    ),
    "ray-cluster": replace(
        BASE, setup=("source /shared/venv/bin/activate",), hosts=("10.0.0.1", "10.0.0.2"), ssh_user="ray",
        ssh_key="~/.ssh/id_ed25519",
    ),
}  # fmt: skip


def full(form: Form, **changes: Any) -> DeploymentRequest:
    """All that the form can carry, with these changes."""
    return replace(FULL[form], **changes)
