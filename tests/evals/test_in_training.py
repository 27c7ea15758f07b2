"""Scores in the loop: the same as from the checkpoint, the same on any number of workers, and no trace in the run."""

from pathlib import Path

import pytest
import torch

from evals.evaluate import evaluate_run
from evals.in_training import score_held_out
from pretrain import config
from pretrain.experiment import Experiment
from pretrain.group import Group
from tests.evals.runs import finished_run, prepared_text
from tests.processes import run_workers

DEEPSPEED = "engine={kind: deepspeed, device: cpu, zero_stage: %d}"


def load(recipe: str, *overrides: str) -> Experiment:
    return config.load(Experiment, config.recipe_path(recipe), overrides)


def test_equal_to_the_score_of_the_checkpoint(tmp_path: Path) -> None:
    overrides = (prepared_text(tmp_path / "text"), "model.vocab_size=257")
    experiment = finished_run(tmp_path / "run", "tiny_transformer_xl", *overrides)
    trainer = experiment.trainer(Group())
    for _ in trainer.steps():
        pass
    found, later = score_held_out(trainer, experiment), evaluate_run(tmp_path / "run").with_memory
    assert found["valid/bits_per_byte"] == pytest.approx(later.bits_per_byte, rel=1e-6)
    assert found["valid/perplexity"] == pytest.approx(later.perplexity, rel=1e-6)
    assert found["valid/nats_per_token"] == pytest.approx(later.nats_per_token, rel=1e-6)


@pytest.mark.parametrize("recipe", ["tiny_transformer_xl", "tiny_gpt", "tiny_wgan", "tiny_rbm"])
def test_a_score_leaves_no_trace_in_the_run(recipe: str) -> None:
    experiment = load(recipe, "steps=4", "evaluate.max_tokens=200")
    watched, alone = experiment.trainer(Group()), experiment.trainer(Group())
    for report, expected in zip(watched.steps(), alone.steps(), strict=True):
        scores = score_held_out(watched, experiment)
        assert scores
        assert all(name.startswith("valid/") for name in scores)
        assert report.turns == expected.turns
    for one, other in zip(watched.pieces(), alone.pieces(), strict=True):
        assert torch.equal(one.tensor, other.tensor), one.name


CASES = {
    "local": ("tiny_transformer_xl", ("data.num_held_out=5", "batch.rows=2")),
    "zero 3": ("tiny_transformer_xl", (DEEPSPEED % 3, "data.num_held_out=5", "batch.rows=2")),
    "images": ("tiny_wgan", ("batch.rows=50",)),
}
"""Five documents in batches of two: one worker has a batch more than the other, and both must call as often."""


def scores_of_a_worker(group: Group, cases: dict[str, tuple[str, tuple[str, ...]]]) -> dict[str, dict[str, float]]:
    scores = {}
    for name, (recipe, overrides) in cases.items():
        experiment = load(recipe, *overrides)
        trainer = experiment.trainer(group)
        next(trainer.steps())
        scores[name] = score_held_out(trainer, experiment)
    return scores


def test_two_workers_score_as_one() -> None:
    alone = scores_of_a_worker(Group(), {name: CASES[name] for name in ("local", "images")})
    alone["zero 3"] = alone["local"]
    for found in run_workers(2, scores_of_a_worker, CASES):
        for name in CASES:
            assert found[name] == pytest.approx(alone[name], rel=2e-5), name
