"""The verbs about checkpoints, on a small run."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from pretrain import checkpoint, config
from pretrain.checkpoint import CheckpointReader, gather_weights
from pretrain.experiment import Experiment
from pretrain.run_directory import create
from tests.cli.command_line import Forks, files_below
from tests.pretrain.checkpoint.test_lifecycle import damage, save_step, steps


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Four checkpoints, the last of them temporary."""
    directory = tmp_path / "run"
    create(directory, config.load(Experiment, config.recipe_path("tiny_gpt"), ()))
    for step in (1, 2, 3, 4):
        save_step(directory, step, temporary=step == 4)
    return directory


def test_list(segue: Forks, run: Path) -> None:
    checkpoint.pin(run, 2, note="best")
    reader = CheckpointReader(run / "checkpoints" / "step-000000001", hold=True)
    listed = segue.run("checkpoints", "list", run, cwd=run.parent)
    assert listed.code == 0, listed
    rows = [line for line in listed.out.splitlines() if "KiB" in line]
    reader.close()
    said = [("read by process",), ("pinned: best",), (), ("newest", "temporary")]
    for row, words in zip(rows, said, strict=True):
        every = ("read by process", "pinned", "newest", "temporary")
        assert [word for word in every if word in row] == [w for w in every if any(x.startswith(w) for x in words)], row
        assert ("permanent" in row) == ("temporary" not in row)


def test_verify_says_of_each_whether_it_is_whole(segue: Forks, run: Path) -> None:
    damage(run, 2)
    verified = segue.run("checkpoints", "verify", run, cwd=run.parent)
    assert verified.code == 4
    assert [line.split(":")[0][-1] for line in verified.out.splitlines()] == ["1", "3", "4"]
    assert "step-000000002 is damaged" in verified.one_message()
    assert "worker-00000.safetensors: piece" in verified.one_message()


def test_pin_prune_unpin(segue: Forks, run: Path) -> None:
    assert segue.run("checkpoints", "pin", run, 1, "--note", "first", cwd=run.parent).code == 0
    before = files_below(run)
    dry = segue.run("checkpoints", "prune", run, "--keep", 1, "--dry-run", cwd=run.parent)
    assert dry.out.splitlines() == ["step-000000001: stays, pinned: first", "step-000000002: would be removed"]
    assert files_below(run) == before
    pruned = segue.run("checkpoints", "prune", run, "--keep", 1, cwd=run.parent)
    assert (pruned.code, steps(run)) == (0, [1, 3, 4])
    assert "step-000000002: removed" in pruned.out
    assert segue.run("checkpoints", "unpin", run, 1, cwd=run.parent).code == 0
    assert segue.run("checkpoints", "prune", run, "--keep", 1, cwd=run.parent).code == 0
    assert steps(run) == [3, 4]
    assert segue.run("checkpoints", "prune", run, "--keep", 1, cwd=run.parent).out == "nothing to remove\n"


@pytest.mark.parametrize(
    ("arguments", "phrase"),
    [
        (["pin", "run", 9], "checkpoint 9: run has no checkpoint of this step; it has 1, 2, 3, 4"),
        (["unpin", "run", 1], "checkpoint 1: run has none of this step that is pinned"),
        (["prune", "run", "--keep", 0], "--keep 0: at least one checkpoint has to stay"),
        (["prune", "missing", "--keep", 1], "missing: there is no such directory"),
        (["export", "run", "out", "--checkpoint", 9], "checkpoint 9: run has no checkpoint of this step"),
        (["export", "run", "run"], "run is there already"),
    ],
)
def test_bad_input(segue: Forks, run: Path, arguments: list[object], phrase: str) -> None:
    before = files_below(run)
    result = segue.run("checkpoints", *arguments, cwd=run.parent)
    assert result.code == 2
    assert phrase in result.one_message()
    assert files_below(run) == before


def test_export(segue: Forks, run: Path) -> None:
    shutil.rmtree(run / "checkpoints" / "step-000000004")
    file = run.parent / "weights.safetensors"
    exported = segue.run("checkpoints", "export", run, file, "--checkpoint", 2, "--dtype", "bfloat16", cwd=run.parent)
    assert exported.code == 0, exported
    (run.parent / "like").touch()
    assert file.stat().st_mode == (run.parent / "like").stat().st_mode
    (info,) = [info for info in checkpoint.list_checkpoints(run) if info.step == 2]
    with safe_open(file, framework="pt") as opened:
        weights = gather_weights(CheckpointReader(info.path))
        assert set(opened.keys()) == {*weights, "count", "none"}
        assert {name: opened.get_tensor(name).dtype for name in weights} == dict.fromkeys(weights, torch.bfloat16)
        assert json.loads(opened.metadata()["experiment"])["name"] == "naïve"
