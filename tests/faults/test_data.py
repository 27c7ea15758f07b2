"""FAULTS 15, 16: token shards with flipped bits, cut off or gone; found, named, counted; stop or skip."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from data_pipeline.config import Corrupt
from data_pipeline.shards import TokenShards
from pretrain.run_directory import read_events
from tests.cli.command_line import Forks
from tests.cli.conftest import segue  # noqa: F401
from tests.cli.test_data import RECIPE, write_corpus

ONWARD = ("steps=6", "--allow", "steps")


@pytest.fixture(scope="module")
def prepared(segue: Forks, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """A recipe and its text in some shards."""
    place = tmp_path_factory.mktemp("prepared")
    write_corpus(place)
    (place / "own.yaml").write_text(
        RECIPE.replace("tokenizer: {kind: byte}", "tokenizer: {kind: byte}\n  shard_bytes: 300")
    )
    done = segue.run("prepare", "own.yaml", "--workers", "1", cwd=place)
    assert done.code == 0, done
    assert len(shards_of(place)) >= 4
    return place


@pytest.fixture
def place(prepared: Path, tmp_path: Path) -> Path:
    shutil.copytree(prepared, tmp_path / "place")
    return tmp_path / "place"


def shards_of(place: Path, kind: str = "tokens") -> list[Path]:
    return sorted((place / "prepared" / "shards").glob(f"train-*.{kind}.npy"))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2])


def say_another_form(path: Path) -> None:
    """The header of an array of other numbers, in as many bytes."""
    path.write_bytes(path.read_bytes().replace(b"'<u2'", b"'<O2'"))


HARMS: list[Callable[[Path], None]] = [flip, cut_off, Path.unlink]


def test_15_16_verify_names_every_file_and_sets_it_aside(segue: Forks, place: Path) -> None:  # noqa: F811
    """Prepared again, all is as it was."""
    whole = {path: path.read_bytes() for path in (place / "prepared" / "shards").iterdir()}
    bad = [shards_of(place)[0], shards_of(place, "offsets")[1], shards_of(place, "bytes")[2]]
    for harm, path in zip(HARMS, bad, strict=True):
        harm(path)
    found = segue.run("data", "verify", "prepared", cwd=place)
    assert found.code == 4
    message = found.one_message()
    assert f"3 of {len(whole) + 1} files are damaged" in message
    problems = ("its content is not what was written", "bytes, but ", "is missing")
    for path, problem in zip(bad, problems, strict=True):
        assert re.search(rf"{path.name}: .*{problem}", message)
    told = segue.run("data", "verify", "own.yaml", "--json", cwd=place)
    assert told.code == 4
    said = json.loads(told.out)
    assert sorted(Path(one["path"]).name for one in said["damaged"]) == sorted(path.name for path in bad)
    assert segue.run("data", "verify", "prepared", "--set-aside", cwd=place).code == 4
    assert [path.exists() for path in bad] == [False, False, False]
    assert (bad[0].parent / f"{bad[0].name}.damaged").is_file()
    again = segue.run("prepare", "own.yaml", "--workers", "1", cwd=place)
    assert again.code == 0, again
    good = segue.run("data", "verify", "prepared", cwd=place)
    assert good.code == 0, good
    assert "every byte is as it was written" in good.out
    assert {path: path.read_bytes() for path in whole} == whole


@pytest.mark.parametrize("harm", [cut_off, Path.unlink])
def test_16_a_run_does_not_start_on_a_damaged_shard(
    segue: Forks,  # noqa: F811
    place: Path,
    harm: Callable[[Path], None],
) -> None:
    path = shards_of(place)[1]
    harm(path)
    refused = segue.run("train", "own.yaml", "--run", "run", cwd=place)
    assert refused.code == 4
    assert path.name in refused.one_message()
    assert not (place / "run").exists()


@pytest.mark.parametrize("harm", [cut_off, Path.unlink, say_another_form])
def test_16_skip_leaves_the_shard_out_counts_and_tells_it(
    segue: Forks,  # noqa: F811
    place: Path,
    harm: Callable[[Path], None],
) -> None:
    path, skip = shards_of(place)[1], "data.damaged=skip"
    whole = TokenShards.open(place / "prepared", "train")
    texts = [tokens.tolist() for tokens, _ in whole.documents()]
    harm(path)
    trained = segue.run("train", "own.yaml", "--run", "run", skip, cwd=place)
    assert trained.code == 0, trained
    lines = [event["message"] for event in read_events(place / "run") if event["event"] == "warning"]
    assert path.name in lines[0]
    assert f"warning: {lines[0]}" in trained.out
    left = TokenShards.open(place / "prepared", "train", damaged="skip")
    kept = [tokens.tolist() for tokens, _ in left.documents()]
    gone = len(texts) - len(kept)
    assert f"1 damaged shards of the split 'train' are left out ({gone} of {len(texts)} documents" in lines[1]
    assert 1 < gone < len(texts) / 2
    begin = next(number for number, (one, other) in enumerate(zip(texts, kept, strict=False)) if one != other)
    assert kept == texts[:begin] + texts[begin + gone :], "all but the documents of one shard"
    assert left.fingerprint != whole.fingerprint
    shown = segue.run("data", "inspect", "own.yaml", skip, cwd=place)
    assert f"left out ({gone} of {len(texts)} documents" in shown.out
    assert f"train: {len(kept)} documents, {left.num_tokens} tokens" in shown.out, "what is read"
    assert (
        f"; besides, left out: {gone} documents, {whole.num_tokens - left.num_tokens} tokens, in 1 shard" in shown.out
    )
    same = segue.run("resume", "run", *ONWARD, cwd=place)
    assert same.code == 0, same
    if harm is say_another_form:
        path.unlink()  # `prepare` looks at sizes
    assert segue.run("prepare", "own.yaml", "--workers", "1", cwd=place).code == 0
    repaired = segue.run("resume", "run", "steps=8", "--allow", "steps", cwd=place)
    assert repaired.code == 3, "with the shard, the data are others than the run has read"
    by_file = harm is not say_another_form  # whose size was right, so that the manifest was believed
    named = f"data.shards/{path.name.replace('.', '_')}: was " if by_file else "data: was "
    assert named in repaired.one_message()


def test_16_where_every_shard_is_damaged_there_is_nothing_to_skip_to(place: Path) -> None:
    for path in shards_of(place):
        cut_off(path)
    with pytest.raises(Corrupt, match="every shard of the split 'train' is damaged"):
        TokenShards.open(place / "prepared", "train", damaged="skip")


def test_15_offsets_that_cannot_be_are_seen_at_open(place: Path) -> None:
    path = shards_of(place, "offsets")[0]
    flip(path)
    with pytest.raises(Corrupt, match=f"{path.name}: its content is not what was written"):
        TokenShards.open(place / "prepared", "train")


@pytest.mark.parametrize("damaged", ["stop", "skip"])
def test_15_a_flipped_bit_is_found_while_training_which_saves_and_stops(
    segue: Forks,  # noqa: F811
    place: Path,
    damaged: str,
) -> None:
    """Repaired, the run goes on; a run whose files are whole says so."""
    path = shards_of(place)[2]
    content = path.read_bytes()
    flip(path)
    changes = ("steps=100000", "data.verify=background", f"data.damaged={damaged}")
    stopped = segue.run("train", "own.yaml", "--run", "run", *changes, cwd=place)
    assert stopped.code == 4, stopped
    message = stopped.one_message()
    assert f"{path.name}: its content is not what was written" in message
    step = int(re.search(r"until step (\d+), which is saved", message)[1])  # type: ignore[index]
    assert 0 < step < 100000
    assert (place / "run" / "checkpoints" / f"step-{step:09d}").is_dir()
    (event,) = [one for one in read_events(place / "run") if one["event"] == "data damaged"]
    assert path.name in event["message"]
    path.write_bytes(content)
    onward = segue.run("resume", "run", f"steps={step + 50}", "--allow", "steps", cwd=place)
    assert onward.code == 0, onward
