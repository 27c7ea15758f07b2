"""The life of a run: what it resumes from, what it refuses, when it gives up, and what it writes."""

from pathlib import Path

import pytest
import torch

from data_pipeline.config import Corrupt, Refused
from pretrain import config
from pretrain.experiment import EXECUTION_KEYS, Experiment
from pretrain.group import Group
from pretrain.metrics_log import read_rows
from pretrain.run import STEP_PHASES, run
from pretrain.run_directory import read_events
from pretrain.saving import save
from pretrain.trainer import Trainer


def experiment(recipe: str = "tiny_rbm", *overrides: str) -> Experiment:
    return config.load(Experiment, config.recipe_path(recipe), ("log.tensorboard=false", *overrides))


def lie_about_the_probe(monkeypatch: pytest.MonkeyPatch, off_by: float) -> None:
    """What a checkpoint of other weights than it says would look like: right hashes, another score."""
    true = Trainer.probe
    monkeypatch.setattr(Trainer, "probe", lambda self, batch: {p: n + off_by for p, n in true(self, batch).items()})


def test_a_checkpoint_whose_probe_does_not_fit_falls_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(experiment(), tmp_path, Group())
    trainer = experiment().trainer(Group())
    for _ in trainer.steps():
        pass
    trainer.step = 30
    with monkeypatch.context() as lying:
        lie_about_the_probe(lying, 100.0)
        save(trainer, experiment(), tmp_path)
    assert run(experiment("tiny_rbm", "steps=21"), tmp_path, Group(), allowed=("steps",)) == 21
    events = read_events(tmp_path)
    assert "step-000000030 scores its probe" in next(e["message"] for e in events if e["event"] == "fallback")
    assert [event["step"] for event in events if event["event"] == "resumed"] == [20]


def test_no_checkpoint_that_fits_is_an_error_unless_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(experiment(), tmp_path, Group())
    lie_about_the_probe(monkeypatch, 100.0)
    with pytest.raises(Corrupt, match="none of its checkpoints is good"):
        run(experiment(), tmp_path, Group())
    assert run(experiment(), tmp_path, Group(), allowed=("probe",)) == 20


def test_other_data_or_another_experiment_is_refused_by_name(tmp_path: Path) -> None:
    run(experiment(), tmp_path, Group())
    with pytest.raises(Refused, match=r"optimizer\.learning_rate: was .*, is now 0\.5"):
        run(experiment("tiny_rbm", "optimizer.learning_rate=0.5"), tmp_path, Group())
    with pytest.raises(Refused, match="data has changed"):
        run(experiment("tiny_rbm", "data.pixels=grey"), tmp_path, Group(), allowed=("data.pixels",))


@pytest.mark.parametrize(
    "override",
    ["name=b", "checkpoint.every=7", "log.every=1", "evaluate.every=null", "engine={kind: deepspeed, zero_stage: 2}"],
)
def test_how_a_run_is_computed_is_no_part_of_its_identity(override: str) -> None:
    assert experiment().identity() == experiment("tiny_rbm", override).identity()


@pytest.mark.parametrize(
    "override", ["seed=1", "steps=21", "batch.rows=3", "engine={kind: local, precision: bfloat16}"]
)
def test_what_a_run_computes_is(override: str) -> None:
    assert experiment().identity() != experiment("tiny_rbm", override).identity()


def test_where_text_lies_is_no_part_of_the_identity() -> None:
    here, there = (
        experiment("transformer_xl_ptb_small", f"data.directory={d}", f"data.corpus.directory={d}") for d in ("a", "b")
    )
    assert here.identity() == there.identity()
    assert "data.corpus.directory" in EXECUTION_KEYS


def test_rates_are_over_the_step_alone(tmp_path: Path) -> None:
    """Saving and evaluating after a step is told in the next one's seconds, and is no part of its rate."""
    slow = (lambda trainer, experiment: torch.linalg.svdvals(torch.randn(900, 900)).sum() and {"score": 1.0},)
    run(experiment("tiny_rbm", "evaluate.every=10"), tmp_path, Group(), evaluators=slow)
    after = read_rows(tmp_path)[10]
    assert {"evaluate", "save"} <= after["seconds"].keys()
    step = sum(after["seconds"][phase] for phase in STEP_PHASES)
    assert after["seconds"]["evaluate"] > step
    assert after["images_per_second"] == pytest.approx(after["images"] / step)
    assert 0 < after["flops_utilisation"] < 1
    assert after["memory_bytes"] > 10**7
