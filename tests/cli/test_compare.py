"""Two runs compared: where a run went another way is found, step and tensor, whatever is flipped and when."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cluster.comparison import compare_runs
from data_pipeline.config import BadInput
from pretrain import checkpoint, config, run_directory
from pretrain.experiment import Experiment
from pretrain.group import Group
from pretrain.run import Watch, run
from pretrain.trainer import Trainer
from tests.cli.command_line import Forks

FLIPPED_BEFORE = 8
"""The step whose first forward sees the flipped bit."""
INDEX = 37


def experiment(*overrides: str) -> Experiment:
    fixed = ("steps=12", "checkpoint.every=3", "checkpoint.keep=null", "evaluate.every=null")
    return config.load(Experiment, config.recipe_path("tiny_gpt"), (*fixed, *overrides))


def finished(directory: Path, *overrides: str, watch: Watch | None = None) -> Path:
    run_directory.create(directory, experiment(*overrides))
    run(experiment(*overrides), directory, Group(), watch=watch or Watch())
    return directory


class FlipABit:
    """Turns over the highest bit of one weight's mantissa before one step."""

    def __init__(self, name: str) -> None:
        self.name, self.done = name, False

    def __call__(self, moment: str, trainer: Trainer) -> None:
        if moment == "data" and trainer.step == FLIPPED_BEFORE - 1 and not self.done:
            self.done = True
            weight = dict(trainer.engine.model.named_parameters())[self.name].data.view(-1)
            weight.view(torch.int32)[INDEX] ^= 1 << 22


def weight_name() -> str:
    with torch.device("meta"):
        names = [name for name, value in experiment().model.build().named_parameters() if value.ndim == 2]
    return names[-1]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """One run, the same once more, and one with a flipped bit."""
    place = tmp_path_factory.mktemp("runs")
    flipped = finished(place / "flipped", watch=Watch(moment=FlipABit(weight_name())))
    return finished(place / "a"), finished(place / "b", "checkpoint.every=6", "log.every=1"), flipped


def test_equal_runs(segue: Forks, tmp_path: Path, runs: tuple[Path, Path, Path]) -> None:
    """Time, rates and memory differ between them, and where they saved."""
    a, b, _ = runs
    result = segue.run("compare", a, b, cwd=tmp_path)
    assert (result.code, result.out.splitlines()) == (0, [
        "steps: all numbers of 12 steps are equal",
        "checkpoints: equal in every bit at steps 6, 12",
        "equal",
    ])  # fmt: skip
    assert json.loads(segue.run("compare", a, b, "--json", cwd=tmp_path).out)["equal"] is True


def test_a_flipped_bit_is_found(segue: Forks, tmp_path: Path, runs: tuple[Path, Path, Path]) -> None:
    a, _, flipped = runs
    result = segue.run("compare", a, flipped, cwd=tmp_path)
    assert result.code == 1
    lines = result.out.splitlines()
    assert lines[0] == f"steps: the first that differs is {FLIPPED_BEFORE}"
    assert lines[1].startswith("  loss: ")
    assert "checkpoints: equal in every bit at steps 3, 6" in lines
    assert "checkpoints: the first that differs is that of step 9" in lines
    assert lines[-1] == f"different: they part after step 6 and by step {FLIPPED_BEFORE}"
    found = json.loads(segue.run("compare", a, flipped, "--json", cwd=tmp_path).out)
    assert found["steps"]["first_different"] == FLIPPED_BEFORE
    assert found["steps"]["numbers"][0]["name"] == "loss"
    rows = [json.loads((run / "metrics.jsonl").read_text().splitlines()[FLIPPED_BEFORE - 1]) for run in (a, flipped)]
    loss = found["steps"]["numbers"][0]
    assert (loss["a"], loss["b"]) == (rows[0]["loss"], rows[1]["loss"])
    assert loss["relative_difference"] == abs(loss["a"] - loss["b"]) / max(loss["a"], loss["b"])


def test_a_number_that_moved_nothing_is_told_as_such(tmp_path: Path, runs: tuple[Path, Path, Path]) -> None:
    a, b, _ = runs
    other = tmp_path / "other"
    shutil.copytree(b, other)
    rows = [json.loads(line) for line in (other / "metrics.jsonl").read_text().splitlines()]
    rows[4]["loss"] *= 1 + 1e-12
    (other / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    found = compare_runs(a, other)
    assert not found.equal
    assert found.lines()[-1] == "different in what was logged; all checkpoints up to step 12 are equal"


def test_the_first_tensor_is_the_first_of_the_model(tmp_path: Path, runs: tuple[Path, Path, Path]) -> None:
    """All weights move after the flip; in the alphabet's order moments and biases would come first."""
    a, _, flipped = runs
    tensors = [tensor.name for tensor in compare_runs(a, flipped).checkpoints.tensors]
    with torch.device("meta"):
        named = [name for name, _ in experiment().model.build().named_parameters()]
    kinds = ("weights", "exp_avg", "exp_avg_sq")
    assert tensors == [f"{kind}/{name}" for kind in kinds for name in named]
    assert tensors != sorted(tensors)


def test_one_bit_alone_is_counted_placed_and_measured(tmp_path: Path, runs: tuple[Path, Path, Path]) -> None:
    """Flipped just before the last save: no row has seen it, one element of one tensor differs."""
    a, name = runs[0], weight_name()

    def flip(moment: str, trainer: Trainer) -> None:
        if moment == "save" and trainer.step == 12:
            dict(trainer.engine.model.named_parameters())[name].data.view(-1).view(torch.int32)[INDEX] ^= 1 << 22

    late = finished(tmp_path / "late", watch=Watch(moment=flip))
    found = compare_runs(a, late)
    assert found.steps.first is None
    assert found.checkpoints.equal == (3, 6, 9)
    (tensor,) = found.checkpoints.tensors
    assert (tensor.name, tensor.num_different, tensor.first_different) == (f"weights/{name}", 1, INDEX)
    values = [
        checkpoint.CheckpointReader(r / "checkpoints/step-000000012").read(tensor.name, INDEX, 1) for r in (a, late)
    ]
    assert tensor.max_difference == abs(values[0].double() - values[1].double()).item() > 0
    assert f"  weights/{name}: 1 elements differ, the first at {INDEX}" in found.lines()[3]


def test_a_step_of_which_one_has_no_row_is_told(tmp_path: Path, runs: tuple[Path, Path, Path]) -> None:
    a, b, _ = runs
    shorter = tmp_path / "shorter"
    shutil.copytree(b, shorter)
    rows = (shorter / "metrics.jsonl").read_text().splitlines(keepends=True)
    (shorter / "metrics.jsonl").write_text("".join([*rows[:4], rows[5]]))
    found = compare_runs(a, shorter)
    assert not found.equal
    assert "steps only in a: 5, 7 to 12" in found.lines()
    assert found.lines()[-1] == "different, but equal as far as both go"


def test_another_experiment_is_named_and_versions_make_no_difference(
    tmp_path: Path, runs: tuple[Path, Path, Path]
) -> None:
    a = runs[0]
    found = compare_runs(a, finished(tmp_path / "other", "optimizer.learning_rate=0.02", "name=other"))
    assert found.experiment == {"optimizer.learning_rate": (0.01, 0.02)}
    assert found.lines()[0] == "experiment optimizer.learning_rate: 0.01 in a, 0.02 in b"
    assert found.steps.first == 1
    assert found.steps.numbers[0].name != "loss", "the first loss is that of the initial weights"
    same = compare_runs(a, runs[1])
    assert replace(same, versions={"torch": ("2.0", "2.1")}).equal


def test_what_is_compared_stays_and_what_a_live_run_has_removed_is_no_damage(
    tmp_path: Path, runs: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    live, other = tmp_path / "live", tmp_path / "other"
    shutil.copytree(runs[0], live)
    shutil.copytree(runs[0], other)
    compare, pruned = checkpoint.compare, []

    def prune_and_compare(*readers: checkpoint.CheckpointReader) -> checkpoint.Comparison:
        if not pruned:
            pruned.append(checkpoint.prune(live, keep=1, look_seconds=0.0))
        return compare(*readers)

    monkeypatch.setattr("cluster.comparison.checkpoint.compare", prune_and_compare)
    found = compare_runs(live, other)
    assert {place.step for place in pruned[0].removed} == {6, 9}
    assert (found.checkpoints.equal, found.checkpoints.damaged) == ((3, 12), ())
    assert found.equal
    assert not [path for run in (live, other) for path in run.glob("checkpoints/*held-*")], "all are let go"


def test_nothing_in_common(tmp_path: Path, runs: tuple[Path, Path, Path]) -> None:
    run_directory.create(tmp_path / "new", experiment())
    with pytest.raises(BadInput, match="neither a step nor a checkpoint in common"):
        compare_runs(runs[0], tmp_path / "new")
    with pytest.raises(BadInput, match="holds no run"):
        compare_runs(runs[0], tmp_path)
