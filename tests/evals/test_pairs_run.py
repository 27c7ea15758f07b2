"""Runs of pairs from end to end: scored in training and from the checkpoint, and resumed by two DeepSpeed workers."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from data_pipeline.config import BadInput
from evals.evaluate import evaluate_run
from evals.in_training import score_held_out
from pretrain import checkpoint, config
from pretrain.experiment import Experiment
from pretrain.group import Group
from pretrain.saving import save
from pretrain.trainer import Trainer
from tests.evals.runs import finished_run
from tests.processes import run_workers

ZERO_3 = "engine={kind: deepspeed, device: cpu, zero_stage: 3, bucket_size: 500, whole_below: 0}"


def load(*overrides: str) -> Experiment:
    return config.load(Experiment, config.recipe_path("tiny_seq2seq"), overrides)


def test_a_score_in_training_is_that_of_the_checkpoint(tmp_path: Path) -> None:
    experiment = finished_run(tmp_path, "tiny_seq2seq", steps=3)
    trainer = experiment.trainer(Group())
    for _ in trainer.steps():
        pass
    found, later = score_held_out(trainer, experiment), evaluate_run(tmp_path)
    assert set(found) == {f"valid/{name}" for name in ("lag", "nats_per_token", "objective", "perplexity")}
    for name, value in found.items():
        assert later.metric(name.removeprefix("valid/")).value == pytest.approx(value, rel=1e-6)
    assert later.metric("streaming_nats_per_token").count == later.metric("nats_per_token").count
    assert later.metric("exact_match").count == 32
    assert 1 <= later.metric("differentiable_average_lagging").value <= 6
    assert evaluate_run(tmp_path, rows=5).metric("nats_per_token").value == pytest.approx(
        later.metric("nats_per_token").value, rel=1e-6
    )


def test_lengths_of_segments_mean_nothing(tmp_path: Path) -> None:
    finished_run(tmp_path, "tiny_seq2seq", steps=1)
    with pytest.raises(BadInput, match="seq2seq reads no running text, but whole pairs"):
        evaluate_run(tmp_path, segment_length=4)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.vocab_size=9", "set model.vocab_size=6"),
        ("model.boundary=0", "set model.boundary=5"),
        ("data={kind: digits}", "cannot be read as pairs, only as vectors"),
    ],
)
def test_data_of_another_kind(override: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        load(override).trainer(Group())


def test_two_workers_that_share_the_weights_resume_with_equal_bits(tmp_path: Path) -> None:
    """Four steps at once, and two, a save, and two more of another trainer; near the local engine's on one worker."""
    alone = load("steps=4", "engine.threads=1").trainer(Group())
    expected = [report.turns[0].loss for report in alone.steps()]
    for losses, whole, resumed in run_workers(2, _with_and_without_a_break, tmp_path):
        assert whole
        assert whole.keys() == resumed.keys()
        assert all(torch.equal(whole[name], resumed[name]) for name in whole)
        assert losses == pytest.approx(expected, rel=1e-4)


def _pieces(trainer: Trainer) -> dict[str, Tensor]:
    return {f"{piece.name}:{piece.start}": piece.tensor.clone() for piece in trainer.pieces()}


def _with_and_without_a_break(
    group: Group, directory: Path
) -> tuple[list[float], dict[str, Tensor], dict[str, Tensor]]:
    experiment = load(ZERO_3, "steps=4")
    whole, losses = experiment.trainer(group), []
    for report in whole.steps():
        losses.append(report.turns[0].loss)
        if report.step == 2:
            save(whole, experiment, directory)
    torch.manual_seed(5)
    resumed = experiment.trainer(group)
    reader = checkpoint.newest_good(directory, log=print)
    assert reader is not None
    resumed.restore(reader, reader.manifest.counters)
    for _ in resumed.steps():
        pass
    return losses, _pieces(whole), _pieces(resumed)
