"""FAULTS 17, 20, 21, 39, 44: what a run refuses to go on with, what it only warns of, and what it never executes."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pretrain.checkpoint.manifest import versions
from pretrain.checkpoint.sealed import seal, unseal
from pretrain.run_directory import read_events, record_version_changes
from tests.cli.command_line import ROOT, Forks
from tests.cli.conftest import segue  # noqa: F401

RECIPE = """
name: own_text
steps: 4
model: {kind: gpt, vocab_size: 257, num_layers: 1, width: 16, num_heads: 2, inner_width: 32, context_length: 8}
data:
  kind: text
  directory: prepared
  corpus: {kind: files, directory: corpus, train: ["*.txt"], valid: ["*.held"], document: line}
  tokenizer: {kind: byte}
batch: {micro_batches: 2, rows: 2}
optimizer: {learning_rate: 0.01}
schedule: {kind: constant}
engine: {kind: local, device: cpu}
checkpoint: {every: 2}
log: {tensorboard: false}
"""


@pytest.fixture(scope="module")
def finished(segue: Forks, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """A place with a recipe, its prepared text and a run of it."""
    place = tmp_path_factory.mktemp("finished")
    (place / "corpus").mkdir()
    text = "\n".join(f"{a} and {b} make {a + b}" for a in range(20) for b in range(20))
    (place / "corpus" / "sums.txt").write_text(text)
    (place / "corpus" / "few.held").write_text("2 and 2 make 4")
    (place / "own.yaml").write_text(RECIPE)
    for verb in (["prepare", "own.yaml", "--workers", "1"], ["train", "own.yaml", "--run", "run"]):
        result = segue.run(*verb, cwd=place)
        assert result.code == 0, result
    return place


@pytest.fixture
def place(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "place")
    return tmp_path / "place"


ONWARD = ("steps=6", "--allow", "steps")


def shard_file(place: Path) -> Path:
    return next((place / "prepared" / "shards").glob("train-*.tokens.npy"))


def change_one_token(place: Path) -> None:
    content = bytearray(shard_file(place).read_bytes())
    content[-2] ^= 1
    shard_file(place).write_bytes(content)


def cut_off(place: Path) -> None:
    shard_file(place).write_bytes(shard_file(place).read_bytes()[:-2])


def delete(place: Path) -> None:
    shard_file(place).unlink()


@pytest.mark.parametrize("harm", [change_one_token, cut_off, delete])
def test_17_a_changed_or_deleted_shard_is_named(
    segue: Forks,  # noqa: F811
    place: Path,
    harm: Callable[[Path], None],
) -> None:
    before = {path: path.read_bytes() for path in (place / "run").iterdir() if path.is_file()}
    named = f"data.shards/{shard_file(place).name.replace('.', '_')}: was '"
    harm(place)
    refused = segue.run("resume", "run", *ONWARD, cwd=place)
    assert refused.code == 3, refused
    message = refused.one_message()
    assert "data in prepared has changed" in message
    assert message.count(": was '") == 1, "nothing else has changed"
    assert named in message
    assert ("is now None" in message) == (harm is delete)
    assert {path: path.read_bytes() for path in (place / "run").iterdir() if path.is_file()} == before


def test_17_other_text_is_refused_and_allowed_by_name(segue: Forks, place: Path) -> None:  # noqa: F811
    shutil.rmtree(place / "prepared")
    with (place / "corpus" / "sums.txt").open("a") as file:
        file.write("\n1 and 1 make 3")
    assert segue.run("prepare", "own.yaml", "--workers", "1", cwd=place).code == 0
    refused = segue.run("resume", "run", *ONWARD, cwd=place)
    assert refused.code == 3
    message = refused.one_message()
    assert "data.shards/train-" in message
    assert "data.shards/valid-" not in message, "the held-out text is the same"
    allowed = segue.run("resume", "run", *ONWARD, "--allow", "data", "--allow", "probe", cwd=place)
    assert allowed.code == 0, allowed


def test_17_data_that_only_moved_is_the_same(segue: Forks, place: Path) -> None:  # noqa: F811
    shutil.move(place / "prepared", place / "elsewhere")
    os.utime(next((place / "elsewhere" / "shards").iterdir()), (0, 0))
    moved = segue.run("resume", "run", *ONWARD, "data.directory=elsewhere", cwd=place)
    assert moved.code == 0, moved


CHANGES = {
    "model.num_heads=4": "model.num_heads: was 2, is now 4",
    "optimizer.learning_rate=0.02": "optimizer.learning_rate: was 0.01, is now 0.02",
    "optimizer.weight_decay=0.3": "optimizer.weight_decay: was",
    "data.tokenizer={kind: word}": "data.tokenizer.kind: was 'byte', is now 'word'",
    "batch.rows=4": "batch.rows: was 2, is now 4",
}


@pytest.mark.parametrize("override", CHANGES)
def test_20_a_changed_experiment_is_refused_with_the_difference(
    segue: Forks,  # noqa: F811
    place: Path,
    override: str,
) -> None:
    refused = segue.run("resume", "run", override, cwd=place)
    assert refused.code == 3
    assert CHANGES[override] in refused.one_message()


def test_20_each_key_is_allowed_by_its_own_name(segue: Forks, place: Path) -> None:  # noqa: F811
    both = ("optimizer.learning_rate=0.02", "optimizer.weight_decay=0.3")
    one = segue.run("resume", "run", *both, *ONWARD, "--allow", "optimizer.learning_rate", cwd=place)
    assert one.code == 3
    message = one.one_message()
    assert "optimizer.weight_decay: was" in message
    assert "learning_rate: was" not in message
    names = [word for key in both for word in ("--allow", key.partition("=")[0])]
    allowed = segue.run("resume", "run", *both, *ONWARD, *names, cwd=place)
    assert allowed.code == 0, allowed
    assert "finished at step 6" in allowed.out
    (changed,) = [event for event in read_events(place / "run") if event["event"] == "changed"]
    assert set(changed["keys"]) >= {key.partition("=")[0] for key in both}
    assert "optimizer.learning_rate was 0.01, is now 0.02" in changed["message"]


def test_20_an_allowed_change_that_does_not_fit_is_named(segue: Forks, place: Path) -> None:  # noqa: F811
    """And the run's own experiment stays as it was, so that it goes on without the change."""
    refused = segue.run("resume", "run", "model.inner_width=48", *ONWARD, "--allow", "model", cwd=place)
    assert refused.code == 2
    message = refused.one_message()
    assert "what was allowed to change (" in message
    assert "model.inner_width" in message.splitlines()[0]
    assert "(32, 16) in the checkpoint, (48, 16) in the run" in message
    assert len(message.splitlines()) < 20
    onward = segue.run("resume", "run", *ONWARD, cwd=place)
    assert onward.code == 0, onward


def test_20_a_misspelt_permission_is_answered_with_the_nearest(segue: Forks, place: Path) -> None:  # noqa: F811
    refused = segue.run("resume", "run", *ONWARD, "--allow", "optimizer.learning_rat", cwd=place)
    assert refused.code == 2
    assert "--allow optimizer.learning_rat: there is no such key; did you mean 'optimizer.learning_rate'?" in (
        refused.one_message()
    )


def test_20_another_tokenizer_of_the_same_settings_is_refused(segue: Forks, place: Path) -> None:  # noqa: F811
    """As of a vocabulary that was made of other text: only its hash tells."""
    record = json.loads((place / "run" / "data.json").read_text())
    record["tokenizer"] = "0" * 64
    (place / "run" / "data.json").write_text(json.dumps(record))
    refused = segue.run("resume", "run", *ONWARD, cwd=place)
    assert refused.code == 3
    assert "data.tokenizer: was '000" in refused.one_message()


def test_21_a_resume_with_other_versions_warns_and_goes_on(segue: Forks, place: Path) -> None:  # noqa: F811
    path = place / "run" / "checkpoints" / "step-000000004" / "manifest.json"
    manifest = unseal(path)
    manifest["versions"]["torch"] = "1.0"
    path.write_bytes(seal(manifest))
    went_on = segue.run("resume", "run", *ONWARD, cwd=place)
    assert went_on.code == 0, went_on
    message = f"other versions than when this was saved: torch was 1.0, is now {versions()['torch']}"
    assert f"warning: {message}" in went_on.out
    assert [event["message"] for event in read_events(place / "run") if event["event"] == "versions"] == [message]


def test_21_other_versions_are_recorded_by_name(tmp_path: Path) -> None:
    saved = {**versions(), "torch": "1.0", "gone": "3.2"}
    lines = record_version_changes(tmp_path, saved)
    assert lines == [f"torch was 1.0, is now {versions()['torch']}", "gone was 3.2, is now not there"]
    (event,) = read_events(tmp_path)
    assert event["event"] == "versions"
    assert all(line in event["message"] for line in lines)


def test_21_the_same_versions_are_no_event(tmp_path: Path) -> None:
    assert record_version_changes(tmp_path, versions()) == []
    assert read_events(tmp_path) == []


class Bomb:
    """What a pickle can do to whoever reads it."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (str(self.mark),)


def as_torch_file(path: Path, mark: Path) -> None:
    """In the older of its formats: an archive that is padded is read by nobody, and so proves nothing."""
    torch.save({"state": Bomb(mark)}, path, _use_new_zipfile_serialization=False)


def as_plain_pickle(path: Path, mark: Path) -> None:
    path.write_bytes(pickle.dumps(Bomb(mark)))


def as_pickled_array(path: Path, mark: Path) -> None:
    import numpy as np

    with path.open("wb") as file:
        np.save(file, np.array([Bomb(mark)], dtype=object), allow_pickle=True)


READERS = (
    ("resume", "run", *ONWARD),
    ("evaluate", "run"),
    ("sample", "run", "--prompt", "1"),
    ("checkpoints", "list", "run"),
    ("checkpoints", "verify", "run"),
    ("compare", "run", "run"),
    ("data", "verify", "prepared"),
    ("data", "inspect", "prepared"),
    ("prepare", "own.yaml", "--workers", "1"),
)


@pytest.mark.slow
@pytest.mark.parametrize(
    "bomb",
    [
        as_plain_pickle,  # which torch.load and np.load fall back to as well
        pytest.param(as_torch_file, marks=pytest.mark.slow),
        pytest.param(as_pickled_array, marks=pytest.mark.slow),
    ],
)
def test_39_a_pickle_in_place_of_any_file_is_never_executed(
    segue: Forks,  # noqa: F811
    finished: Path,
    tmp_path: Path,
    bomb: Callable[[Path, Path], None],
) -> None:
    """In place of each kind of file in turn; everything that reads runs, and whatever it says, the bomb is whole."""
    mark = tmp_path / "executed"
    bomb(tmp_path / "bomb", mark)
    kinds: dict[str, list[Path]] = {}
    for path in sorted((*(finished / "run").rglob("*"), *(finished / "prepared").rglob("*"))):
        if path.is_file():
            kinds.setdefault("".join(c for c in str(path.relative_to(finished)) if not c.isdigit()), []).append(path)
    assert len(kinds) > 10
    for paths in kinds.values():
        place = tmp_path / "place"
        shutil.copytree(finished, place)
        for path in paths:
            padded = (tmp_path / "bomb").read_bytes().ljust(path.stat().st_size, b"\0")  # so that its size is no sign
            (place / path.relative_to(finished)).write_bytes(padded)
        for arguments in READERS:
            assert segue.run(*arguments, cwd=place).code in range(7)
            assert not mark.exists(), (paths[0], arguments)
        shutil.rmtree(place)


NO_RAY = """
import sys, launch
sys.argv = ["launch.py", "train", "tiny_transformer_xl", "model.num_layer=3", "--workers", "2"]
try:
    launch.main()
except SystemExit as ended:
    print(ended.code, sorted({"ray"} & set(sys.modules)))
"""


def test_44_a_misspelt_key_is_named_before_any_worker_starts(tmp_path: Path) -> None:
    """Ray was not even imported."""
    done = subprocess.run(
        [sys.executable, "-c", NO_RAY], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.stdout.splitlines() == ["2 []"], done
    assert "model.num_layer: there is no such key; did you mean 'num_layers'?" in done.stderr
    assert "override 'model.num_layer=3'" in done.stderr
    assert list(tmp_path.iterdir()) == []
