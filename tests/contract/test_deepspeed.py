"""Every tiny recipe under DeepSpeed with two workers: other processes go on with it, ZeRO 3 cuts its weights."""

from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from data_pipeline.config import BadInput
from pretrain import checkpoint, config
from pretrain.experiment import Experiment
from pretrain.group import Group
from pretrain.saving import save
from pretrain.trainer import Trainer
from tests.pretrain.engines.runs import Memory, copies
from tests.processes import run_workers

HALF = 2
"""Steps before the checkpoint, and after it."""

Seen = tuple[list[float], dict[str, Tensor]]
"""The loss of each turn, and all of the state at the end."""

TINY = [name.removeprefix("tiny_") for name in config.recipe_names() if name.startswith("tiny_")]
every_model = pytest.mark.parametrize("recipe", sorted(TINY))


def tiny(recipe: str, stage: int) -> Experiment:
    """The tiny recipe on DeepSpeed, in buckets so small that a small model is cut as a large one would be."""
    values = config.load(Experiment, config.recipe_path(f"tiny_{recipe}")).model_dump(mode="json")
    values["engine"] = {"kind": "deepspeed", "zero_stage": stage, "bucket_size": 500, "whole_below": 0, "device": "cpu"}
    values["batch"] = {"micro_batches": 4, "rows": 2}
    return config.parse(Experiment, values, source=recipe)


def first(group: Group, directory: Path) -> dict[str, Seen]:
    """All steps of each model, with a checkpoint half-way."""
    left = {}
    for recipe in sorted(TINY):
        experiment = tiny(recipe, 1)
        trainer = experiment.trainer(group)
        losses = _take(trainer)
        save(trainer, experiment, directory / recipe)
        left[recipe] = (losses + _take(trainer), _state(trainer))
        trainer.engine.close()
    return left


def second(group: Group, directory: Path) -> dict[str, Seen]:
    """What is left to do after the checkpoint, by processes that know nothing else."""
    left = {}
    for recipe in sorted(TINY):
        trainer = tiny(recipe, 1).trainer(group)
        reader = checkpoint.newest_good(directory / recipe, log=print, group=group)
        assert reader is not None
        trainer.restore(reader, reader.manifest.counters)
        left[recipe] = (_take(trainer), _state(trainer))
        trainer.engine.close()
    return left


def cut(group: Group) -> dict[str, list[float] | str]:
    """The losses at stage 3, or why it is refused."""
    left: dict[str, list[float] | str] = {}
    for recipe in sorted(TINY):
        try:
            trainer = tiny(recipe, 3).trainer(group)
        except BadInput as refused:
            left[recipe] = str(refused)
            continue
        left[recipe] = _take(trainer)
        trainer.engine.close()
    return left


def _take(trainer: Trainer) -> list[float]:
    return [turn.loss for report in islice(trainer.steps(), HALF) for turn in report.turns]


def _state(trainer: Trainer) -> dict[str, Tensor]:
    every = trainer.engine.group.gather(copies(trainer))
    return Memory([piece for found in every for piece in found]).tensors


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("deepspeed")


@pytest.fixture(scope="module")
def whole(place: Path) -> dict[str, Seen]:
    return run_workers(2, first, place)[0]


@pytest.fixture(scope="module")
def resumed(place: Path, whole: dict[str, Seen]) -> dict[str, Seen]:
    return run_workers(2, second, place)[0]


@pytest.fixture(scope="module")
def cut_up() -> dict[str, Any]:
    return run_workers(2, cut)[0]


@every_model
def test_other_processes_go_on_with_equal_bits(recipe: str, whole: dict[str, Seen], resumed: dict[str, Seen]) -> None:
    losses, state = whole[recipe]
    again, same = resumed[recipe]
    assert again == losses[len(losses) - len(again) :]
    assert same.keys() == state.keys()
    assert [name for name in state if not torch.equal(state[name], same[name])] == []


@every_model
def test_stage_3_computes_the_same_or_is_refused_by_name(
    recipe: str, whole: dict[str, Seen], cut_up: dict[str, Any]
) -> None:
    found = cut_up[recipe]
    model = tiny(recipe, 1).model
    if len(model.players) > 1:
        refusal = f"engine.zero_stage=3 cuts one model's parameters, but model.kind={model.kind} has the players"
        assert f"{refusal} {', '.join(model.players)}" in found
    else:
        assert found == pytest.approx(whole[recipe][0][: len(found)], rel=1e-5, abs=1e-6)
