"""Every recipe: complete, strict, the same after a round trip, plannable, and of the published size."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from pretrain import config
from pretrain.experiment import Experiment
from pretrain.models import MODEL_CONFIGS
from pretrain.plan import Plan, plan

PATHS = sorted(config.RECIPES.rglob("*.yaml"))
every_recipe = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)

MILLIONS = {
    "transformer_xl_wikitext103_base": 151,  # Dai et al. 2019, table 1
    "transformer_xl_wikitext103_large": 285.2,  # the released weights: 1.14 GB in float32 (the paper writes 257)
    "transformer_xl_enwik8_base": 41,  # table 2
    "transformer_xl_enwik8_large": 277,
    "gpt2_124m": 124.44,
    "gpt2_355m": 354.82,
    "gpt2_774m": 774.03,
    "gpt2_1558m": 1557.61,
}
"""Published parameters."""

PUBLISHED_BATCH = {
    "transformer_xl_wikitext103_base": 60 * 150,
    "transformer_xl_wikitext103_large": 128 * 384,
    "transformer_xl_enwik8_base": 22 * 512,
    "transformer_xl_enwik8_large": 64 * 768,
    "gpt2_124m": 512 * 1024,
    "gpt2_1558m": 512 * 1024,
}
"""Tokens of a step."""

REQUIRED = {
    "quickstart", "transformer_xl_ptb_small", "transformer_xl_wikitext2_small", "wgan_digits", "rbm_digits", *MILLIONS,
    "made_digits", "made_mnist", "wavenet_waves", "wavenet_spoken_digits",
    "pixelcnn_digits", "pixelcnn_pp_digits", "pixelcnn_softmax_digits", "pixelcnn_mnist", "nade_digits", "nade_mnist",
}  # fmt: skip

_plans: dict[str, Plan] = {}


def planned(name: str) -> Plan:
    if name not in _plans:
        _plans[name] = plan(config.load(Experiment, config.recipe_path(name)), [1])
    return _plans[name]


def test_all_recipes_are_there_under_names_of_their_own() -> None:
    names = config.recipe_names()
    assert set(names) >= REQUIRED
    assert len(names) == len(set(names))


def test_every_model_has_a_tiny_recipe() -> None:
    kinds = {config.load(Experiment, path).model.kind for path in sorted((config.RECIPES / "tiny").glob("*.yaml"))}
    assert kinds == set(MODEL_CONFIGS)


@every_recipe
def test_equal_after_a_round_trip(path: Path, tmp_path: Path) -> None:
    experiment = config.load(Experiment, path)
    copy = tmp_path / "copy.yaml"
    copy.write_text(config.dump(experiment), encoding="utf-8")
    assert config.load(Experiment, copy) == experiment
    assert experiment.name == path.stem


def left_out(value: BaseModel, written: Any, prefix: str = "") -> list[str]:
    """Dotted fields of a configuration that its YAML does not write out."""
    missing = []
    for name in type(value).model_fields:
        inside = getattr(value, name)
        if name not in written:
            missing.append(f"{prefix}{name}")
        elif isinstance(inside, BaseModel):
            missing += left_out(inside, written[name], f"{prefix}{name}.")
        elif isinstance(inside, dict):
            for key, member in inside.items():
                if isinstance(member, BaseModel):
                    missing += left_out(member, written[name][key], f"{prefix}{name}.{key}.")
    return missing


@every_recipe
def test_every_field_is_written_out(path: Path) -> None:
    """So that a changed default changes no recipe."""
    assert left_out(config.load(Experiment, path), yaml.safe_load(path.read_text(encoding="utf-8"))) == []


def test_a_field_left_out_is_found() -> None:
    path = config.recipe_path("tiny_gan")
    written = yaml.safe_load(path.read_text(encoding="utf-8"))
    del written["player_optimizers"]["generator"]["betas"], written["model"]["game"]["penalty"]
    expected = ["model.game.penalty", "player_optimizers.generator.betas"]
    assert left_out(config.load(Experiment, path), written) == expected


@every_recipe
def test_every_recipe_plans_and_says_where_it_comes_from(path: Path) -> None:
    assert planned(path.stem).placement(1).memory.total > 0
    assert path.read_text(encoding="utf-8").startswith("# ")


@pytest.mark.parametrize("name", sorted(MILLIONS))
def test_parameters_are_the_published_ones(name: str) -> None:
    assert planned(name).parameters == pytest.approx(1e6 * MILLIONS[name], rel=0.01)


def test_parameters_are_exact_where_they_were_published_so() -> None:
    """Said in the authors' scripts (https://github.com/kimiyoung/transformer-xl), and the released GPT-2's count."""
    assert planned("transformer_xl_wikitext103_base").parameters == 151_107_538
    assert planned("gpt2_124m").parameters == 124_439_808


@pytest.mark.parametrize("name", sorted(PUBLISHED_BATCH))
def test_tokens_of_a_step_are_the_published_ones(name: str) -> None:
    assert planned(name).count_per_step == PUBLISHED_BATCH[name]


@every_recipe
def test_batches_can_be_shared_by_two_workers(path: Path) -> None:
    assert config.load(Experiment, path).batch.micro_batches % 2 == 0


@pytest.mark.parametrize("name", sorted(path.stem for path in PATHS if path.parent.name == "tiny"))
def test_tiny_recipes_need_no_files_and_start_at_once(name: str) -> None:
    experiment = config.load(Experiment, config.recipe_path(name))
    experiment.check_data()
    assert experiment.stream().micro_batch(0, 0).rows == experiment.batch.rows
    assert experiment.steps == 20
