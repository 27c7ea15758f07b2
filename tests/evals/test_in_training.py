"""Scores in the loop: the same as from the checkpoint, the same on any number of workers, and no trace in the run."""

import json
import math
import re
import shutil
from pathlib import Path

import pytest
import torch

from cluster.sampling import keep_tokenizer
from data_pipeline.config import BadInput
from evals import in_training
from evals.evaluate import evaluate_run
from evals.evaluate_tasks import evaluate_tasks
from evals.in_training import check_tasks, score_held_out, score_tasks
from evals.results_file import ResultsFile
from evals.scoring.item import ItemScore
from evals.targets import Target
from evals.tasks.data import DataSource
from evals.zero_shot import Work
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


@pytest.mark.parametrize("recipe", ["tiny_transformer_xl", "tiny_gpt", "tiny_gan", "tiny_rbm"])
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
    "images": ("tiny_gan", ("batch.rows=50",)),
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


def tasks(place: Path) -> tuple[str, ...]:
    """Overrides that ask for two tasks, whose files are made."""
    rows = ["memory carries on", "segue carries", "on and on carries memory", "é segue on memory", "carries é"]
    for name, lines in (
        ("lambada/lambada_test.jsonl", [f'{{"text": "{row}"}}' for row in rows]),
        ("ptb/ptb.test.txt", [f" {row} " for row in rows]),
    ):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text("\n".join(lines) + "\n")
    return (
        "evaluate.tasks=[lambada, ptb/tokenized]", f"evaluate.tasks_directory={place}", "model.vocab_size=257",
        "model.initial_std=0.3",
    )  # fmt: skip


def tasks_of_a_worker(group: Group, recipe: str, overrides: tuple[str, ...]) -> dict[str, float]:
    experiment = load(recipe, *overrides)
    trainer = experiment.trainer(group)
    next(trainer.steps())
    return score_tasks(trainer, experiment)


@pytest.mark.parametrize("recipe", ["tiny_transformer_xl", "tiny_gpt"])
def test_tasks_in_training_are_those_of_the_checkpoint_and_of_any_workers(recipe: str, tmp_path: Path) -> None:
    overrides = (prepared_text(tmp_path / "text"), *tasks(tmp_path / "tasks"), "batch.rows=2")
    experiment = finished_run(tmp_path / "run", recipe, *overrides, steps=1)
    keep_tokenizer(experiment, tmp_path / "run")
    source, target = DataSource(tmp_path / "tasks"), Target(str(tmp_path / "run"))
    results = evaluate_tasks(target, experiment.evaluate.tasks, source, ResultsFile(None), rows=2)
    wanted = {metric.name: metric.value for result in results for metric in result.metrics}
    assert len(wanted) == 7
    for found in (tasks_of_a_worker(Group(), recipe, overrides), *run_workers(2, tasks_of_a_worker, recipe, overrides)):
        assert found == pytest.approx(wanted, rel=1e-5)


def test_tasks_leave_no_trace_in_the_run(tmp_path: Path) -> None:
    overrides = (prepared_text(tmp_path / "text"), *tasks(tmp_path / "tasks"), "steps=3", "model.dropout=0.2")
    watched, alone = (load("tiny_transformer_xl", *overrides).trainer(Group()) for _ in range(2))
    for report, expected in zip(watched.steps(), alone.steps(), strict=True):
        assert score_tasks(watched, load("tiny_transformer_xl", *overrides))
        assert report.turns == expected.turns
    for one, other in zip(watched.pieces(), alone.pieces(), strict=True):
        assert torch.equal(one.tensor, other.tensor), one.name


def test_tasks_are_read_once(tmp_path: Path) -> None:
    overrides = (prepared_text(tmp_path / "text"), *tasks(tmp_path / "tasks"), "steps=3")
    experiment = load("tiny_transformer_xl", *overrides)
    trainer, other = experiment.trainer(Group()), experiment.trainer(Group())
    first = score_tasks(trainer, experiment)
    shutil.rmtree(tmp_path / "tasks")
    assert score_tasks(trainer, experiment) == first
    next(trainer.steps())
    assert all(score_tasks(trainer, experiment)[name] != first[name] for name in first if "perplexity" in name)
    with pytest.raises(
        BadInput, match=r"evaluate\.tasks: lambada: no .*; put it there, or leave out evaluate\.tasks_dir"
    ):
        score_tasks(other, experiment)


def tasks_with_files_on(group: Group, overrides: tuple[str, ...], who: int) -> tuple[str, dict[str, float]]:
    """The message of the error, or the scores, where one worker alone has the files."""
    elsewhere = () if group.rank == who else ("evaluate.tasks_directory=/nowhere",)
    try:
        return "", tasks_of_a_worker(group, "tiny_transformer_xl", (*overrides, *elsewhere))
    except BadInput as error:
        return str(error), {}


def test_only_the_leader_needs_the_files_and_none_waits_where_it_has_none(tmp_path: Path) -> None:
    overrides = (prepared_text(tmp_path / "text"), *tasks(tmp_path / "tasks"))
    wanted = tasks_of_a_worker(Group(), "tiny_transformer_xl", overrides)
    for message, found in run_workers(2, tasks_with_files_on, overrides, 0, timeout=100):
        assert message == ""
        assert found == pytest.approx(wanted, rel=1e-5)
    messages = [message for message, _ in run_workers(2, tasks_with_files_on, overrides, 1, timeout=100)]
    assert messages[0] == messages[1]
    assert messages[0].startswith("evaluate.tasks: lambada: no lambada_test.jsonl")


def batches_of_a_worker(group: Group, overrides: tuple[str, ...]) -> list[tuple[int, int]]:
    """Those that this worker scored: how many its task has, and which."""
    scored = []
    own = in_training.of_batch

    def note(work: Work, number: int, scores: list[list[ItemScore]]) -> list[tuple[int, ItemScore]]:
        scored.append((len(work.batches), number))
        return own(work, number, scores)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(in_training, "of_batch", note)
        tasks_of_a_worker(group, "tiny_transformer_xl", overrides)
    return scored


def test_each_batch_is_scored_by_one_worker_alone(tmp_path: Path) -> None:
    overrides = (prepared_text(tmp_path / "text"), *tasks(tmp_path / "tasks"), "batch.rows=2")
    shares = run_workers(2, batches_of_a_worker, overrides)
    alone = batches_of_a_worker(Group(), overrides)
    assert sorted(shares[0] + shares[1]) == sorted(alone)
    assert abs(len(shares[0]) - len(shares[1])) <= 2, "at most one more of each task"


def any_error_of_the_leader(group: Group, overrides: tuple[str, ...]) -> str:
    """Its message on this worker, where the leader fails by what is no bad input."""
    with pytest.MonkeyPatch.context() as patch:
        if group.leads:
            patch.setattr(in_training, "plan", lambda *_, **__: 1 // 0)
        return message_of(group, overrides)


def message_of(group: Group, overrides: tuple[str, ...]) -> str:
    try:
        tasks_of_a_worker(group, "tiny_transformer_xl", overrides)
    except RuntimeError as error:
        return str(error)
    return "no error"


def test_every_failure_of_the_leader_is_all_workers(tmp_path: Path) -> None:
    overrides = (prepared_text(tmp_path / "text"), *tasks(tmp_path / "tasks"))
    message = "evaluate.tasks: worker 0: ZeroDivisionError: integer division or modulo by zero"
    assert run_workers(2, any_error_of_the_leader, overrides, timeout=100) == [message, message]


def test_weights_that_are_not_finite_end_no_run(tmp_path: Path) -> None:
    experiment = load("tiny_gpt", prepared_text(tmp_path / "text"), *tasks(tmp_path / "tasks"))
    trainer = experiment.trainer(Group())
    with torch.no_grad():
        next(trainer.engine.model.parameters()).fill_(float("nan"))
    found = score_tasks(trainer, experiment)
    assert sorted(found) == ["lambada", "ptb/tokenized"]
    assert all(math.isnan(value) for value in found.values())


def test_the_limit_holds_for_the_check_too(tmp_path: Path) -> None:
    overrides = [prepared_text(tmp_path / "text"), *tasks(tmp_path / "tasks"), "evaluate.tasks=[lambada]"]
    file = tmp_path / "tasks" / "lambada" / "lambada_test.jsonl"
    file.write_text(file.read_text() + json.dumps({"text": f"carries {'o' * 100}"}) + "\n")
    with pytest.raises(BadInput, match=r"evaluate\.tasks: lambada: "):
        check_tasks(load("tiny_gpt", *overrides))
    check_tasks(load("tiny_gpt", *overrides, "evaluate.tasks_limit=5"))


def test_tasks_that_would_never_be_scored_are_refused() -> None:
    with pytest.raises(
        BadInput, match=r"evaluate\.tasks=\[ptb, wsc273\] with evaluate\.every=null would never be scored"
    ):
        load("tiny_transformer_xl", "evaluate.tasks=[ptb, wsc273]", "evaluate.every=null")
    load("tiny_transformer_xl", "evaluate.every=null")


def test_tasks_that_cannot_be_asked_are_named(tmp_path: Path) -> None:
    text = prepared_text(tmp_path / "text")
    for overrides, message in (
        (("evaluate.tasks=[lamda]", text), "evaluate.tasks lamda: there is no such task; did you mean lambada"),
        (("evaluate.tasks=[wsc273]", f"evaluate.tasks_directory={tmp_path}", text), "evaluate.tasks: wsc273: no "),
        (("evaluate.tasks=[lambada]",), "data.kind markov is no text, so no task can be asked"),
    ):
        with pytest.raises(BadInput, match=re.escape(message)):
            check_tasks(load("tiny_transformer_xl", *overrides))
    with pytest.raises(BadInput, match=r"evaluate\.tasks needs all weights on each worker"):
        load("tiny_transformer_xl", "evaluate.tasks=[lambada]", DEEPSPEED % 3)
