"""A RayJob for Kubernetes with KubeRay, and the ConfigMap that holds its recipe.

The fields: https://docs.ray.io/en/latest/cluster/kubernetes/references/api.html (KubeRay 1.7), pods:
https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/. `authOptions` came with KubeRay 1.5.1.
"""

import re
from importlib.metadata import version
from typing import Any

from cluster.deployment.readable_yaml import dump
from cluster.deployment.request import DeploymentRequest, seconds_of, summary, training_command
from cluster.ray_session import OBJECT_STORE_BYTES
from data_pipeline.config import BadInput

LONGEST_NAME = 47
"""KubeRay appends to a RayJob's name, and the services' names must not be cut (MaxRayJobNameLength)."""
LABEL = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")
"""A DNS-1035 label, which KubeRay wants a RayJob's name to be."""
SUBDOMAIN = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
"""A DNS-1123 subdomain, as which claims are named."""
NODE_LABEL = re.compile(r"([a-z0-9.-]{1,253}/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?=[A-Za-z0-9._-]{0,63}")
RECIPE_DIRECTORY = "/etc/segue"
RECIPE = "recipe.yaml"
MOST_BYTES = 2**20
"""Of a ConfigMap."""
USER = 1000
"""Neither root nor anybody in particular; the claim's files belong to its group."""
MEMORY = 16
"""GiB for a worker where nothing is said."""
SPARE_SECONDS = 60
"""A pod has so much longer to end than its run has to save."""


def manifest(request: DeploymentRequest) -> str:
    """Both documents, for `kubectl apply`."""
    name = kubernetes_name(request.name)
    check(request)
    return dump(config_map(request, name), ray_job(request, name), comment=comment(request, name))


def comment(request: DeploymentRequest, name: str) -> list[str]:
    """What the file is and how it is used."""
    return [
        f"Segue, {summary(request)};",
        "written by `segue submit --emit kuberay`, for KubeRay 1.5.1 or later.",
        "",
        *shown_commands(name),
        "",
        f"The image has bash, Segue and Ray {version('ray')}; the claim can be mounted by many pods at a time",
        f"(ReadWriteMany). The run is in its runs/{request.name}.",
    ]


def shown_commands(name: str) -> list[str]:
    commands = {
        "kubectl apply --dry-run=server -f THIS_FILE": "what your cluster would say",
        "kubectl apply -f THIS_FILE": "begins the run, or carries on with it",
        f"kubectl get rayjob {name}": "how far it is",
        f"kubectl logs --follow job/{name}": "what the training says",
        "kubectl delete -f THIS_FILE": "saves, then stops",
    }
    width = max(map(len, commands))
    return [f"    {command:{width}}    # {meaning}" for command, meaning in commands.items()]


def kubernetes_name(name: str) -> str:
    """The name as a Kubernetes object may bear it.

    >>> kubernetes_name("transformer_xl_wikitext103.base")
    'transformer-xl-wikitext103-base'
    """
    made = re.sub(r"[._]", "-", name.lower())
    if len(made) > LONGEST_NAME or not LABEL.fullmatch(made):
        raise BadInput(
            f"--name {name!r}: Kubernetes would call the job {made!r}, and a RayJob's name begins with a letter, ends "
            f"with a letter or digit, and has only small letters, digits and - in it, {LONGEST_NAME} at most; give "
            "another --name"
        )
    return made


def check(request: DeploymentRequest) -> None:
    """Raise BadInput for what Kubernetes needs and has not been told."""
    if request.image is None:
        raise BadInput("--image: Kubernetes needs the name of an image in which Segue is installed; give it")
    if request.claim is None:
        raise BadInput("--claim: Kubernetes needs the PersistentVolumeClaim that holds --storage; give its name")
    if not SUBDOMAIN.fullmatch(request.claim):
        raise BadInput(f"--claim {request.claim!r}: must be small letters, digits, . and -, as claims are named")
    for label in request.node_selector:
        if not NODE_LABEL.fullmatch(label):
            raise BadInput(f"--node-selector {label!r}: must be KEY=VALUE, a label of nodes")
    if request.accelerator is not None and not request.node_selector:
        raise BadInput(
            f"--accelerator {request.accelerator}: Kubernetes knows its nodes by labels; give --node-selector "
            "KEY=VALUE too, the label of yours that have it (kubectl get nodes --show-labels)"
        )
    size = len(request.recipe.encode())
    if size > MOST_BYTES:
        raise BadInput(f"the recipe has {size} bytes; a ConfigMap holds {MOST_BYTES}")


def config_map(request: DeploymentRequest, name: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": f"{name}-recipe"},
        "data": {RECIPE: request.recipe},
    }


def ray_job(request: DeploymentRequest, name: str) -> dict[str, Any]:
    """A cluster for this run alone, which goes when it is done; a driver that fails is started again in a new one."""
    spec: dict[str, Any] = {
        "entrypoint": " ".join(training_command(request, f"{RECIPE_DIRECTORY}/{RECIPE}")),
        "submissionMode": "K8sJobMode",
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": 600,
        "backoffLimit": request.retries,
    }
    if request.time_limit is not None:
        spec["activeDeadlineSeconds"] = seconds_of(request.time_limit)
    spec |= {
        "rayClusterSpec": {
            "rayVersion": version("ray"),
            "authOptions": {"mode": "token"},
            "headGroupSpec": head_group(request, name),
            "workerGroupSpecs": [worker_group(request)],
        },
        "submitterPodTemplate": {"spec": submitter_pod(request)},
    }
    return {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": {"name": name}, "spec": spec}


def head_group(request: DeploymentRequest, name: str) -> dict[str, Any]:
    """Ray's head, with the driver and no worker."""
    container = ray_container(request, "ray-head", resources={"cpu": 2, "memory": "8Gi"})
    container["ports"] = [
        {"name": "gcs-server", "containerPort": 6379},
        {"name": "dashboard", "containerPort": 8265},
        {"name": "client", "containerPort": 10001},
    ]
    # Ray would end a driver that is told to stop three seconds later; it is to save.
    container["env"].append({"name": "RAY_JOB_STOP_WAIT_TIME_S", "value": str(request.notice)})
    container["volumeMounts"].append({"name": "recipe", "mountPath": RECIPE_DIRECTORY, "readOnly": True})
    pod = ray_pod(request, container)
    pod["volumes"].append({"name": "recipe", "configMap": {"name": f"{name}-recipe"}})
    start = {"dashboard-host": "0.0.0.0", "num-cpus": "0", "object-store-memory": str(OBJECT_STORE_BYTES)}
    return {"rayStartParams": start, "template": {"spec": pod}}


def worker_group(request: DeploymentRequest) -> dict[str, Any]:
    """A pod for each node, with all workers of the node."""
    workers = request.workers_per_node
    resources: dict[str, Any] = {
        "cpu": workers * request.cpus_per_worker,
        "memory": f"{workers * (request.memory_per_worker or MEMORY)}Gi",
    }
    if request.gpus_per_worker:
        resources[gpu_resource(request.accelerator)] = workers
    pod = ray_pod(request, ray_container(request, "ray-worker", resources=resources))
    if request.node_selector:
        pod["nodeSelector"] = dict(label.split("=", 1) for label in request.node_selector)
    if request.gpus_per_worker:
        pod["tolerations"] = [{"key": gpu_resource(request.accelerator), "operator": "Exists", "effect": "NoSchedule"}]
    return {
        "groupName": "workers",
        "replicas": request.nodes,
        "minReplicas": request.nodes,
        "maxReplicas": request.nodes,
        "rayStartParams": {"object-store-memory": str(OBJECT_STORE_BYTES)},
        "template": {"spec": pod},
    }


def gpu_resource(accelerator: str | None) -> str:
    """What the device plugin of its maker calls a GPU.

    >>> gpu_resource("H100"), gpu_resource("AMD-Instinct-MI300X-OAM")
    ('nvidia.com/gpu', 'amd.com/gpu')
    """
    return "amd.com/gpu" if accelerator is not None and accelerator.startswith("AMD-") else "nvidia.com/gpu"


def ray_pod(request: DeploymentRequest, container: dict[str, Any]) -> dict[str, Any]:
    """A pod that KubeRay starts Ray in."""
    return {
        **hardened_pod(),
        "terminationGracePeriodSeconds": request.notice + SPARE_SECONDS,
        "containers": [container],
        "volumes": [{"name": "storage", "persistentVolumeClaim": {"claimName": request.claim}}],
    }


def ray_container(request: DeploymentRequest, name: str, *, resources: dict[str, Any]) -> dict[str, Any]:
    """KubeRay adds the command that starts Ray, its probes, the token from a Secret, and /dev/shm."""
    return {
        "name": name,
        "image": request.image,
        "resources": {"limits": resources, "requests": resources},
        "securityContext": hardened_container(),
        "env": [
            {"name": "RAY_USAGE_STATS_ENABLED", "value": "0"},
            {"name": "HOME", "value": "/tmp"},  # for the caches of compilers: a user without a name has no home
            {"name": "USER", "value": "segue"},
        ],
        "lifecycle": {
            "preStop": {"exec": {"command": ["python", "-m", "cluster.pre_stop", "--seconds", str(request.notice)]}}
        },
        "volumeMounts": [{"name": "storage", "mountPath": request.storage}],
    }


def submitter_pod(request: DeploymentRequest) -> dict[str, Any]:
    """KubeRay's pod that hands the entrypoint to the cluster and shows what it says."""
    return {
        **hardened_pod(),
        "restartPolicy": "Never",
        "containers": [
            {
                "name": "ray-job-submitter",
                "image": request.image,
                "resources": {
                    "limits": {"cpu": 1, "memory": "1Gi"},
                    "requests": {"cpu": "500m", "memory": "512Mi"},
                },
                "securityContext": hardened_container(),
                "env": [{"name": "HOME", "value": "/tmp"}],
            }
        ],
    }


def hardened_pod() -> dict[str, Any]:
    """With `hardened_container`, what the Pod Security Standard `restricted` asks for."""
    return {
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }


def hardened_container() -> dict[str, Any]:
    return {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
