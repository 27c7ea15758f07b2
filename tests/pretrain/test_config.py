"""Recipes: what is read, what overrides do, and what errors say."""

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field

from data_pipeline.config import BadInput, Config
from pretrain import config


class Small(Config):
    kind: Literal["small"]
    width: int = Field(gt=0)


class Large(Config):
    kind: Literal["large"]
    depth: int = 2


class Recipe(Config):
    name: str
    model: Annotated[Small | Large, Field(discriminator="kind")]
    rates: tuple[float, float] = (0.1, 0.2)


TEXT = "name: a\nmodel:\n  kind: small\n  width: 3\n"


def load(tmp_path: Path, text: str, *overrides: str) -> Recipe:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    return config.load(Recipe, path, overrides)


def message(tmp_path: Path, text: str, *overrides: str) -> str:
    with pytest.raises(BadInput) as caught:
        load(tmp_path, text, *overrides)
    return str(caught.value)


def test_secrets_are_not_dumped(tmp_path: Path) -> None:
    recipe = load(tmp_path, TEXT, "name=https://me:hunter22@host/x")
    assert load(tmp_path, config.dump(recipe)).name == "https://<redacted>@host/x"


def test_a_recipe_survives_dump_and_load(tmp_path: Path) -> None:
    recipe = load(tmp_path, TEXT)
    assert load(tmp_path, config.dump(recipe)) == recipe


def test_overrides_go_by_dotted_path_and_are_yaml(tmp_path: Path) -> None:
    recipe = load(tmp_path, TEXT, "model.width=5", "rates=[1, 2]", "name=b c")
    assert (recipe.model, recipe.rates, recipe.name) == (Small(kind="small", width=5), (1.0, 2.0), "b c")


def test_a_misspelt_key_is_answered_with_the_nearest(tmp_path: Path) -> None:
    said = message(tmp_path, TEXT, "model.widht=5")
    assert "model.widht: there is no such key; did you mean 'width'?" in said
    assert said.startswith("override 'model.widht=5': ")
    assert "r.yaml" not in said


def test_what_is_wrong_in_the_file_is_blamed_on_the_file(tmp_path: Path) -> None:
    said = message(tmp_path, TEXT.replace("width: 3", "width: -3"), "name=b")
    assert said.splitlines() == [f"{tmp_path}/r.yaml: model.width: Input should be greater than 0, but it is -3"]
    both = message(tmp_path, TEXT.replace("name: a", "name: [1]"), "model.width=-5").splitlines()
    assert [line.partition(": ")[0] for line in both] == [f"{tmp_path}/r.yaml", "override 'model.width=-5'"]


def test_what_only_overrides_together_make_wrong_is_blamed_on_them(tmp_path: Path) -> None:
    said = message(tmp_path, "name: a\nmodel:\n  kind: large\n", "model.kind=small", "name=b")
    assert said.startswith("with model.kind=small name=b: model.width: this key is required")


def test_another_kind_takes_the_keys_that_it_has(tmp_path: Path) -> None:
    """The file's `width` is small's alone; one that is given with the kind is an error all the same."""
    assert load(tmp_path, TEXT, "model.kind=large", "model.depth=5").model == Large(kind="large", depth=5)
    assert load(tmp_path, TEXT, "model.depth=5", "model.kind=large").model == Large(kind="large", depth=5)
    said = message(tmp_path, TEXT, "model.width=5", "model.kind=large")
    assert said.startswith("override 'model.width=5': model.width: there is no such key")


def test_an_unknown_kind_is_answered_with_those_there_are(tmp_path: Path) -> None:
    said = message(tmp_path, TEXT, "model.kind=lagre")
    assert said == "override 'model.kind=lagre': model.kind: must be one of 'small', 'large', but it is 'lagre'"


def test_keys_of_another_member_of_a_union_are_not_offered(tmp_path: Path) -> None:
    assert "did you mean 'depth'" not in message(tmp_path, TEXT, "model.dept=5")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("model.width=0", "model.width: Input should be greater than 0, but it is 0"),
        ("model.width=wide", "model.width: Input should be a valid integer"),
        ("model.kind=huge", "'small', 'large'"),
        ("model", "write key.path=value"),
        ("name.first=x", "'name' is a single value"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, override: str, expected: str) -> None:
    assert expected in message(tmp_path, TEXT, override)


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    assert "name: this key is required" in message(tmp_path, "model: {kind: small, width: 1}")


@pytest.mark.parametrize("text", ["- a list", "a: [", "\x00"])
def test_files_that_are_no_recipe(tmp_path: Path, text: str) -> None:
    assert "r.yaml" in message(tmp_path, text)


def test_unknown_recipes_are_answered_with_the_nearest() -> None:
    with pytest.raises(BadInput, match="did you mean 'quickstart'"):
        config.recipe_path("quikstart")


def test_differences_are_by_leaf() -> None:
    old, new = {"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 1, "c": 5}, "e": 4}
    assert config.differences(old, new) == {"a.c": (2, 5), "d": (3, None), "e": (None, 4)}
