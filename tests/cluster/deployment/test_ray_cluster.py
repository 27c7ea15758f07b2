"""The configuration for `ray up`, by Ray's own schema and checks, and its commands by the options of `ray start`."""

import copy
import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray.autoscaler
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts.scripts import start

from cluster.deployment import emit
from data_pipeline.config import BadInput
from tests.cluster.deployment.requests import full

SCHEMA = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
VARIANTS: list[dict[str, Any]] = [
    {},
    {"setup": ()},
    {"setup": (), "image": "registry.example/segue:1", "ssh_key": None},
    {"hosts": ("10.0.0.1",), "nodes": 1},
]
variants = pytest.mark.parametrize("changes", VARIANTS)


def config(**changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load(emit("ray-cluster", full("ray-cluster", **changes)))
    return values


@variants
def test_ray_takes_it(changes: dict[str, Any]) -> None:
    values = config(**changes)
    jsonschema.validate(values, SCHEMA)
    prepared = prepare_config(copy.deepcopy(values))
    validate_config(prepared)
    (node_type,) = prepared["available_node_types"].values()
    assert node_type["min_workers"] == node_type["max_workers"] == len(values["provider"]["worker_ips"])


def test_rays_schema_sees_a_planted_mistake() -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(config() | {"setup_command": []}, SCHEMA)


@variants
def test_its_commands_are_those_of_ray_and_of_a_shell(changes: dict[str, Any]) -> None:
    """With a token, and the dashboard on loopback."""
    values = config(**changes)
    known = {name for parameter in start.params for name in parameter.opts}
    commands = values["head_start_ray_commands"] + values["worker_start_ray_commands"]
    for command in [*commands, *values["setup_commands"]]:
        assert subprocess.run(["bash", "-n", "-c", command], check=False).returncode == 0, command
    starts = [command for command in commands if "ray start" in command]
    assert len(starts) == 2
    for command in starts:
        words = shlex.split(command)
        options = [word.split("=")[0] for word in words[words.index("start") + 1 :]]
        assert set(options) <= known
        assert words[words.index("ray") - 1 :] != words
        assert "RAY_AUTH_MODE=token" in words[: words.index("start")]
        assert f"RAY_AUTH_TOKEN_PATH={next(iter(values['file_mounts']))}" in words
    assert "--dashboard-host=127.0.0.1" in starts[0]
    assert "RAY_JOB_STOP_WAIT_TIME_S=300" in starts[0]


def test_the_token_is_copied_and_nobody_else_reads_it() -> None:
    values = config()
    ((there, here),) = values["file_mounts"].items()
    assert here == "~/.ray/auth_token"
    assert values["setup_commands"] == [f"chmod 600 {there}"]


def test_segue_is_installed_where_it_is_not_there() -> None:
    values = config(setup=())
    wheel = next(path for path in values["file_mounts"] if path.endswith(".whl"))
    assert re.fullmatch(r"~/segue-[\d.]+-py3-none-any\.whl", wheel)
    assert any(wheel in command and "pip install" in command for command in values["setup_commands"])
    assert all("segue-environment/bin/activate" in command for command in values["head_start_ray_commands"])
    with_image = config(setup=(), image="registry.example/segue:1")
    assert not any("pip" in command for command in with_image["setup_commands"])
    assert with_image["docker"]["run_options"][0] == "--volume /shared/segue:/shared/segue"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hosts": ()}, "--host: give the address of each machine"),
        ({"hosts": ("10.0.0.1", "a b")}, "--host 'a b'"),
        ({"hosts": ("10.0.0.1", "10.0.0.1")}, "a machine is given twice"),
        ({"nodes": 3}, "--nodes 3: there are 2 machines"),
        ({"ssh_user": None}, "--ssh-user: "),
        ({"ssh_key": "my key"}, "--ssh-key 'my key'"),
        ({"image": "registry.example/segue:1"}, "--setup: with --image Segue is in the image"),
    ],
)
def test_what_ray_could_not_start_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        emit("ray-cluster", full("ray-cluster", **changes))


def test_its_first_lines_say_how_a_job_is_submitted() -> None:
    text = emit("ray-cluster", full("ray-cluster"))
    assert "ray up THIS_FILE" in text
    assert "--storage /shared/segue --nodes 2 --workers-per-node 8 --accelerator H100\n" in text
