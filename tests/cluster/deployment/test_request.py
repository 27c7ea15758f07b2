"""What no deployment file may hold or leave without effect is refused, by its option's name."""

from dataclasses import fields

import pytest
import yaml

from cluster.deployment import FORMS, DeploymentRequest, Form, emit
from cluster.deployment.request import USED_BY, given, option
from data_pipeline.config import BadInput
from data_pipeline.redaction import redact
from tests.cluster.deployment.requests import FULL, full, recipe

SECRET = "hf_" + "abcdefgh12345678ABCD"


@pytest.mark.parametrize("form", FORMS)
def test_what_is_printed_is_what_was_made(form: Form) -> None:
    """Segue's standard output blots out secrets: a file that merely looks as if it had one would be damaged."""
    text = emit(form, FULL[form])
    assert redact(text) == text
    assert text.endswith("\n")
    assert all(len(line) <= 250 for line in text.splitlines())


@pytest.mark.parametrize("form", FORMS)
def test_every_option_of_a_form_is_in_its_file(form: Form) -> None:
    """Each field, changed alone, changes the text."""
    others: dict[str, object] = {
        "recipe": recipe("steps=21"), "name": "other", "storage": "/other", "nodes": 1, "workers_per_node": 4,
        "gpus_per_worker": 0, "accelerator": "A100", "cpus_per_worker": 7, "memory_per_worker": 33,
        "time_limit": "2-00:00:00", "notice": 111, "setup": ("module load other",),
        "image": "registry.example/other:2", "partition": "other", "account": "other", "interface": "eth9",
        "claim": "other", "node_selector": ("pool=other",), "retries": 1,
        "hosts": ("10.0.0.7", "10.0.0.8"), "ssh_user": "other", "ssh_key": "~/.ssh/other",
    }  # fmt: skip
    assert set(others) == {field.name for field in fields(DeploymentRequest)}
    before = emit(form, FULL[form])
    for name, value in others.items():
        if form not in USED_BY.get(name, FORMS) or (form, name) in UNREAD:
            continue
        changes = {name: value}
        if name == "gpus_per_worker":
            changes["accelerator"] = None
        if (form, name) == ("ray-cluster", "image"):
            changes["setup"] = ()
        assert emit(form, full(form, **changes)) != before, name


UNREAD = {("ray-cluster", "recipe")}
"""A cluster is started for any recipe."""


@pytest.mark.parametrize("form", FORMS)
def test_an_option_without_effect_is_refused(form: Form) -> None:
    for other in FORMS:
        for name, value in given(FULL[other]):
            if form not in USED_BY.get(name, FORMS):
                with pytest.raises(BadInput, match=rf"^{option(name)}: has no effect with --emit {form}, but with"):
                    emit(form, full(form, **{name: value}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "my run"}, "--name 'my run': must begin with a letter or digit"),
        ({"name": "../up"}, "--name"),
        ({"name": "a;b"}, "--name"),
        ({"storage": "shared"}, "--storage 'shared': must be an absolute path"),
        ({"storage": "/shared/../etc"}, "--storage"),
        ({"storage": "/shared/$(id)"}, "--storage"),
        ({"storage": "/"}, "--storage"),
        ({"nodes": 0}, "--nodes 0: must be 1 or more"),
        ({"workers_per_node": 0}, "--workers-per-node 0: must be 1 or more"),
        ({"notice": 5}, "--notice 5: must be 30 or more"),
        ({"gpus_per_worker": 2}, "--gpus-per-worker 2: a worker computes on one GPU"),
        ({"gpus_per_worker": 0}, "--accelerator H100: goes with --gpus-per-worker 1"),
        ({"accelerator": "H100 80GB"}, "--accelerator 'H100 80GB': must be one word"),
        ({"partition": "gpu\n#SBATCH --uid=0"}, "--partition"),
        ({"time_limit": "1 day"}, r"--time-limit '1 day': must be \[DAYS-\]HOURS"),
        ({"time_limit": "00:10:00"}, "--time-limit 00:10:00: must be more than twice --notice, 300 s"),
        ({"setup": ("module load a\nrm -rf /",)}, "--setup .* must be one line"),
        ({"setup": (" ",)}, "--setup"),
        ({"recipe": "- a list"}, "the recipe is a list"),
        ({"recipe": "a: [1"}, "the recipe is not valid YAML"),
        ({"recipe": 'name: "a\nEND_OF_RECIPE\nb"'}, "the recipe has a line END_OF_RECIPE"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        emit("slurm", full("slurm", **changes))


@pytest.mark.parametrize("form", FORMS)
def test_a_secret_is_refused_and_not_repeated(form: Form, monkeypatch: pytest.MonkeyPatch) -> None:
    values = yaml.safe_load(recipe())
    values["data"]["directory"] = f"https://me:{SECRET}@host/data"
    values["log"]["api_key"] = "sesame-open"
    refused = []
    for changes in ({"recipe": yaml.safe_dump(values)}, {"setup": (f"export HF_TOKEN={SECRET}",)}):
        if form in USED_BY.get(next(iter(changes)), FORMS):
            with pytest.raises(BadInput, match="holds a secret") as refusal:
                emit(form, full(form, **changes))
            refused.append(str(refusal.value))
    assert not any(SECRET in message or "sesame" in message for message in refused)
    assert "data.directory, log.api_key" in refused[0]

    monkeypatch.setenv("MY_PASSWORD", "tiny_gpt")
    with pytest.raises(BadInput, match="secret"):
        emit(form, FULL[form])


def test_a_recipe_whose_secrets_were_left_out_is_refused() -> None:
    """Its copy in a file could not be trained."""
    values = yaml.safe_load(recipe()) | {"password": "<redacted>"}
    with pytest.raises(BadInput, match="recipe key password"):
        emit("slurm", full("slurm", recipe=yaml.safe_dump(values)))
