"""The RayJob against the fields of KubeRay's reference, its pods against the published schemas of Kubernetes.

KubeRay's CRD is in no Python package. `RAY_JOB` has the fields that Segue uses, from the reference of `ray.io/v1` at
KubeRay 1.7.0 (docs/reference/api.md of ray-project/kuberay), and nothing else passes; `ValidateRayJobSpec` and
`ValidateRayJobMetadata` (ray-operator/controllers/ray/utils/validation.go) are what the operator asks for beyond it.
"""

import copy
import re
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from cluster.deployment import emit
from cluster.deployment.kuberay import kubernetes_name
from data_pipeline.config import BadInput
from tests.cluster.deployment.requests import FULL, full, recipe

KUBERNETES = "1.37"


def strict(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    """A mapping of these keys and no others."""
    return {
        "type": "object",
        "properties": required | optional,
        "required": list(required),
        "additionalProperties": False,
    }


POD_TEMPLATE = strict({"spec": {"type": "object"}}, metadata={"type": "object"})
START_PARAMETERS = {"type": "object", "additionalProperties": {"type": "string"}}  # object (keys:string, values:string)
COUNT = {"type": "integer", "minimum": 0}
RAY_JOB = strict(
    {
        "apiVersion": {"const": "ray.io/v1"},
        "kind": {"const": "RayJob"},
        "metadata": strict({"name": {"type": "string", "pattern": r"^[a-z]([-a-z0-9]*[a-z0-9])?$", "maxLength": 47}}),
        "spec": strict(
            {
                "entrypoint": {"type": "string"},
                "rayClusterSpec": strict(
                    {
                        "headGroupSpec": strict({"rayStartParams": START_PARAMETERS, "template": POD_TEMPLATE}),
                        "workerGroupSpecs": {
                            "type": "array",
                            "items": strict(
                                {
                                    "groupName": {"type": "string"},
                                    "minReplicas": COUNT,
                                    "maxReplicas": COUNT,
                                    "rayStartParams": START_PARAMETERS,
                                    "template": POD_TEMPLATE,
                                },
                                replicas=COUNT,
                            ),
                        },
                        "rayVersion": {"type": "string", "pattern": r"^\d+\.\d+\.\d+$"},
                        "authOptions": strict({"mode": {"enum": ["disabled", "token"]}}),
                    }
                ),
            },
            submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
            shutdownAfterJobFinishes={"type": "boolean"},
            ttlSecondsAfterFinished=COUNT,
            backoffLimit=COUNT,
            activeDeadlineSeconds={"type": "integer", "minimum": 1},
            submitterPodTemplate=POD_TEMPLATE,
        ),
    }
)


def documents(**changes: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The ConfigMap and the RayJob."""
    config_map, job = yaml.safe_load_all(emit("kuberay", full("kuberay", **changes)))
    return config_map, job


def pods(job: dict[str, Any]) -> dict[str, dict[str, Any]]:
    cluster = job["spec"]["rayClusterSpec"]
    return {
        "head": cluster["headGroupSpec"]["template"]["spec"],
        "workers": cluster["workerGroupSpecs"][0]["template"]["spec"],
        "submitter": job["spec"]["submitterPodTemplate"]["spec"],
    }


VARIANTS = [
    {},
    {"nodes": 1, "workers_per_node": 1},
    {"gpus_per_worker": 0, "accelerator": None, "node_selector": (), "time_limit": None, "memory_per_worker": None},
    {"accelerator": "AMD-Instinct-MI300X-OAM"},
]


@pytest.mark.parametrize("changes", VARIANTS)
def test_it_has_fields_of_the_reference_only(changes: dict[str, Any]) -> None:
    _, job = documents(**changes)
    jsonschema.validate(job, RAY_JOB)


@pytest.mark.parametrize("changes", VARIANTS)
def test_kubernetes_would_take_its_pods_and_the_recipe(changes: dict[str, Any]) -> None:
    config_map, job = documents(**changes)
    kubernetes_validate.validate(config_map, KUBERNETES, strict=True)
    for name, spec in pods(job).items():
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)


@pytest.mark.parametrize(
    "planted",
    [
        lambda job: job["spec"].update(backOffLimit=3),
        lambda job: job["spec"]["rayClusterSpec"]["authOptions"].update(mode="on"),
        lambda job: job["spec"]["rayClusterSpec"]["headGroupSpec"]["rayStartParams"].update({"num-cpus": 0}),
        lambda job: job["metadata"].update(name="With_capitals"),
    ],
)
def test_the_schema_sees_a_planted_mistake(planted: Any) -> None:
    job = copy.deepcopy(documents()[1])
    planted(job)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(job, RAY_JOB)


@pytest.mark.parametrize(
    "planted",
    [
        lambda spec: spec.update(terminationGracePeriod=3),
        lambda spec: spec["containers"][0]["resources"]["limits"].update(cpu=["4"]),
        lambda spec: spec["containers"][0]["securityContext"].update(runAsNonroot=True),
        lambda spec: spec["volumes"][0]["persistentVolumeClaim"].pop("claimName"),
    ],
)
def test_the_schema_of_pods_sees_a_planted_mistake(planted: Any) -> None:
    spec = copy.deepcopy(pods(documents()[1])["workers"])
    planted(spec)
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": spec}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)


def test_it_keeps_to_what_the_operator_asks_for() -> None:
    """ValidateRayJobSpec: a time to live needs the shutdown, token authentication a version of Ray, and so on."""
    _, job = documents()
    spec, cluster = job["spec"], job["spec"]["rayClusterSpec"]
    assert spec["shutdownAfterJobFinishes"] or not spec["ttlSecondsAfterFinished"]
    assert tuple(map(int, cluster["rayVersion"].split("."))) >= (2, 52, 0)
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert "resources" not in group
        assert "labels" not in group["rayStartParams"]
    assert cluster["workerGroupSpecs"][0]["minReplicas"] <= cluster["workerGroupSpecs"][0]["maxReplicas"]


def test_pods_keep_to_the_restricted_standard() -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/, profile Restricted."""
    for spec in pods(documents()[1]).values():
        assert spec["securityContext"]["runAsNonRoot"]
        assert spec["securityContext"]["runAsUser"] != 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        assert {kind for volume in spec.get("volumes", []) for kind in volume} <= {
            "name", "persistentVolumeClaim", "configMap",
        }  # fmt: skip
        for container in spec["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert set(container["resources"]["limits"]) >= {"cpu", "memory"}


def test_it_runs_the_recipe_on_what_was_asked_for() -> None:
    config_map, job = documents()
    assert yaml.safe_load(config_map["data"]["recipe.yaml"]) == yaml.safe_load(recipe())
    assert job["spec"]["entrypoint"] == (
        "segue -C /shared/segue train /etc/segue/recipe.yaml --run runs/tiny_gpt --address auto --carry-on "
        "--nodes 2 --workers-per-node 8 --accelerator H100"
    )
    head, workers = pods(job)["head"], pods(job)["workers"]
    mounted = {mount["name"]: mount["mountPath"] for mount in head["containers"][0]["volumeMounts"]}
    assert mounted == {"storage": "/shared/segue", "recipe": "/etc/segue"}
    assert head["volumes"][1] == {"name": "recipe", "configMap": {"name": config_map["metadata"]["name"]}}
    assert workers["containers"][0]["resources"]["limits"] == {"cpu": 32, "memory": "800Gi", "nvidia.com/gpu": 8}
    assert workers["nodeSelector"]["pool"] == "training"
    assert job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["replicas"] == 2
    assert job["spec"]["activeDeadlineSeconds"] == 12 * 3600
    assert job["spec"]["backoffLimit"] == 9


def test_a_pod_has_longer_to_end_than_its_run_has_to_save() -> None:
    for name in ("head", "workers"):
        spec = pods(documents(notice=120)[1])[name]
        command = spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
        assert command == ["python", "-m", "cluster.pre_stop", "--seconds", "120"]
        assert spec["terminationGracePeriodSeconds"] > 120


def test_the_head_computes_nothing_and_a_driver_may_save_when_its_job_is_stopped() -> None:
    head = documents(notice=120)[1]["spec"]["rayClusterSpec"]["headGroupSpec"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert {"name": "RAY_JOB_STOP_WAIT_TIME_S", "value": "120"} in head["template"]["spec"]["containers"][0]["env"]


@pytest.mark.parametrize("name", ["a", "transformer_xl_base", "Run.7", "a" * 47])
def test_names_are_made_valid(name: str) -> None:
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", kubernetes_name(name))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "7days"}, "--name '7days': Kubernetes would call the job '7days', .* begins with a letter"),
        ({"name": "run_"}, "--name 'run_'"),
        ({"name": "a" * 48}, "47 at most"),
        ({"image": None}, "--image: Kubernetes needs"),
        ({"claim": None}, "--claim: Kubernetes needs"),
        ({"claim": "My_Claim"}, "--claim 'My_Claim': must be small letters"),
        ({"node_selector": ("pool",)}, "--node-selector 'pool': must be KEY=VALUE"),
        ({"node_selector": ()}, "--accelerator H100: Kubernetes knows its nodes by labels"),
        ({"recipe": "name: " + "x" * 2**20}, "a ConfigMap holds 1048576"),
    ],
)
def test_what_kubernetes_could_not_take_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        emit("kuberay", full("kuberay", **changes))


def test_its_first_lines_say_how_it_is_used() -> None:
    text = emit("kuberay", FULL["kuberay"])
    assert "#     kubectl apply -f THIS_FILE " in text
    assert "kubectl get rayjob tiny-gpt " in text
