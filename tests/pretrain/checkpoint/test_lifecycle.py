"""Which checkpoints stay: permanent and temporary ones, pinned ones, those that somebody reads (row 46)."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from data_pipeline.config import BadInput, Corrupt
from pretrain.checkpoint import (
    CheckpointReader,
    gather_weights,
    latest,
    list_checkpoints,
    move_pointer,
    newest_good,
    pin,
    prune,
    retain,
    save,
    unpin,
    verify,
)
from pretrain.checkpoint import retention as retention_module
from pretrain.checkpoint.holds import Holds, held
from pretrain.checkpoint.layout import HELD, Place, checkpoints_of, leftovers, pin_of, places
from pretrain.checkpoint.pins import pin_note
from pretrain.group import Group
from pretrain.owner import Owner, encode
from tests.pretrain.checkpoint.cases import DESCRIPTION, tensors
from tests.pretrain.checkpoint.test_background import pieces
from tests.processes import ROOT


def save_step(run: Path, step: int, *, temporary: bool = False, keep: int | None = None) -> Path:
    own = pieces(tensors(step))
    return save(run, step=step, pieces=own, description=DESCRIPTION, group=Group(), keep=keep, temporary=temporary)


def steps(run: Path) -> list[int]:
    return [place.step for place in places(run)]


def damage(run: Path, step: int) -> None:
    file = checkpoints_of(run) / Place(step).name / "worker-00000.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def test_only_the_newest_temporary_one_stays_and_only_until_there_is_a_newer_one(tmp_path: Path) -> None:
    seen = []
    for step, temporary in enumerate([False, True, True, False, False, True, False], start=1):
        save_step(tmp_path, step, temporary=temporary, keep=2)
        seen.append(steps(tmp_path))
    assert seen == [[1], [1, 2], [1, 3], [1, 4], [4, 5], [4, 5, 6], [5, 7]]


def test_keeping_all_is_about_permanent_ones(tmp_path: Path) -> None:
    for step, temporary in enumerate([True, False, True, True], start=1):
        save_step(tmp_path, step, temporary=temporary)
    assert steps(tmp_path) == [2, 4]
    assert [info.temporary for info in list_checkpoints(tmp_path)] == [False, True]


def test_a_temporary_one_stays_while_the_newer_one_is_incomplete(tmp_path: Path) -> None:
    save_step(tmp_path, 1, temporary=True)
    path = save_step(tmp_path, 2, temporary=True)
    assert steps(tmp_path) == [2]
    save_step(tmp_path, 3)
    save_step(tmp_path, 4, temporary=True)
    (checkpoints_of(tmp_path) / Place(4).name / "manifest.json").unlink()
    assert retain(tmp_path, keep=None) == []
    assert steps(tmp_path) == [3, 4]
    assert not path.exists()


def test_a_run_that_went_back_to_a_temporary_one_keeps_it(tmp_path: Path) -> None:
    save_step(tmp_path, 1)
    save_step(tmp_path, 2, temporary=True)
    move_pointer(tmp_path, Place(2))
    assert retain(tmp_path, keep=1) == []
    assert steps(tmp_path) == [1, 2]


def test_a_pinned_one_stays_until_it_is_unpinned(tmp_path: Path) -> None:
    save_step(tmp_path, 1)
    pin(tmp_path, 1, note="the paper's")
    save_step(tmp_path, 2, temporary=True)
    pin(tmp_path, 2)
    for step in (3, 4):
        save_step(tmp_path, step, keep=1)
    assert steps(tmp_path) == [1, 2, 4]
    assert [info.pinned for info in list_checkpoints(tmp_path)] == ["the paper's", "", None]
    unpin(tmp_path, 1)
    save_step(tmp_path, 5, keep=1)
    assert steps(tmp_path) == [2, 5]
    for change, step in ((unpin, 5), (unpin, 1), (pin, 1)):
        with pytest.raises(BadInput, match=f"checkpoint {step}"):
            change(tmp_path, step)


def test_a_pinned_one_stays_when_its_step_is_saved_again(tmp_path: Path) -> None:
    save_step(tmp_path, 1)
    pin(tmp_path, 1)
    save_step(tmp_path, 1)
    assert places(tmp_path) == [Place(1), Place(1, revision=1)]
    unpin(tmp_path, 1)
    save_step(tmp_path, 2)
    assert places(tmp_path) == [Place(1, revision=1), Place(2)]


def test_a_damaged_pin_is_a_pin(tmp_path: Path) -> None:
    save_step(tmp_path, 1)
    pin(tmp_path, 1)
    pin_of(tmp_path, Place(1)).write_bytes(b"?")
    save_step(tmp_path, 2, keep=1)
    assert steps(tmp_path) == [1, 2]
    assert pin_note(tmp_path, Place(1)) == "the pin's file is damaged"


def test_a_damaged_checkpoint_is_not_pinned(tmp_path: Path) -> None:
    (save_step(tmp_path, 1) / "worker-00000.safetensors").unlink()
    with pytest.raises(Corrupt, match="worker-00000"):
        pin(tmp_path, 1)
    assert pin_note(tmp_path, Place(1)) is None


def test_what_is_read_stays_until_it_is_closed(tmp_path: Path) -> None:
    save_step(tmp_path, 1)
    reader = newest_good(tmp_path, log=pytest.fail, hold=True)
    assert reader is not None
    save_step(tmp_path, 2, keep=1)
    assert steps(tmp_path) == [1, 2]
    assert list_checkpoints(tmp_path)[0].held_by == (f"process {os.getpid()} on {os.uname().nodename}",)
    assert gather_weights(reader)["layers.0.w_BLD"].shape == (7, 5)
    reader.close()
    save_step(tmp_path, 3, keep=1)
    assert steps(tmp_path) == [3]
    assert not list(checkpoints_of(tmp_path).glob("*.json*held*"))


def test_a_reader_that_is_forgotten_holds_nothing(tmp_path: Path) -> None:
    path = save_step(tmp_path, 1)
    CheckpointReader(path, hold=True)
    assert not list(checkpoints_of(tmp_path).glob(f"*{HELD}*"))


def test_a_damaged_one_is_not_held_once_that_is_known(tmp_path: Path) -> None:
    save_step(tmp_path, 1)
    save_step(tmp_path, 2)
    damage(tmp_path, 2)
    reader = newest_good(tmp_path, log=lambda line: None, hold=True)
    assert reader is not None
    assert [bool(info.held_by) for info in list_checkpoints(tmp_path)] == [True, False]


READER = """
import sys, time
from pathlib import Path
from pretrain.checkpoint import CheckpointReader, gather_weights
reader = CheckpointReader(Path(sys.argv[1]), hold=True)
print("reading", flush=True)
sys.stdin.readline()
print(float(gather_weights(reader)["layers.0.w_BLD"][6, 4]), flush=True)
time.sleep(1000)
"""


@pytest.fixture
def process(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """One that reads the checkpoint of step 1."""
    path = save_step(tmp_path, 1)
    started = subprocess.Popen(
        [sys.executable, "-c", READER, str(path)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert started.stdout is not None
    assert started.stdout.readline() == "reading\n"
    yield started
    started.kill()
    started.communicate()


def test_another_process_reads_on_and_killed_it_holds_nothing(tmp_path: Path, process: subprocess.Popen[str]) -> None:
    save_step(tmp_path, 2, keep=1)
    assert steps(tmp_path) == [1, 2]
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    assert float(process.stdout.readline()) == float(tensors(1)["weights/layers.0.w_BLD"][6, 4])
    process.send_signal(signal.SIGKILL)
    process.wait(60)
    save_step(tmp_path, 3, keep=1)
    assert steps(tmp_path) == [3]
    assert not list(checkpoints_of(tmp_path).glob(f"*{HELD}*"))


def write_foreign_hold(run: Path, beats: int) -> None:
    content = encode(replace(Owner.here("0"), host="elsewhere"), beats)
    (checkpoints_of(run) / f"{Place(1).name}{HELD}0.json").write_text(content)


def test_a_hold_of_another_host_is_live_while_its_count_moves(tmp_path: Path) -> None:
    save_step(tmp_path, 1)
    holds = Holds(tmp_path, stale_seconds=0.05)
    for beats in (1, 2, 3):
        write_foreign_hold(tmp_path, beats)
        assert holds.of(Place(1)) == [f"process {os.getpid()} on elsewhere"]
        time.sleep(0.1)
    assert holds.of(Place(1)) == []
    write_foreign_hold(tmp_path, 4)
    assert holds.of(Place(1)) != []
    assert Holds(tmp_path, stale_seconds=0.05).of(Place(1)) != [], "the first look decides nothing"
    assert Holds(tmp_path).of(Place(1, revision=1)) == []


def test_an_unreadable_hold_is_live_while_it_changes(tmp_path: Path) -> None:
    save_step(tmp_path, 1)
    holds, path = Holds(tmp_path, stale_seconds=0.05), checkpoints_of(tmp_path) / f"{Place(1).name}{HELD}0.json"
    for content in (b"{", b"[]"):
        path.write_bytes(content)
        assert holds.of(Place(1)) == ["an unreadable hold"]
    time.sleep(0.1)
    assert holds.of(Place(1)) == []


def test_a_hold_moves_its_count(tmp_path: Path) -> None:
    from pretrain.checkpoint.holds import Hold

    path = save_step(tmp_path, 1)
    hold = Hold(path, renew_seconds=0.01)
    first = json.loads(hold.path.read_bytes())["beats"]
    deadline = time.monotonic() + 60
    while json.loads(hold.path.read_bytes())["beats"] == first:
        assert time.monotonic() < deadline
    hold.release()
    assert not hold.path.exists()


def test_a_hold_that_comes_while_its_checkpoint_goes_gets_it_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_step(tmp_path, 1)
    save_step(tmp_path, 2)
    real, entered = retention_module.move_directory, []

    def move(source: Path, target: Path) -> None:
        if not entered:
            entered.append(held(path))
            entered[0].__enter__()
        real(source, target)

    monkeypatch.setattr(retention_module, "move_directory", move)
    assert retain(tmp_path, keep=1) == []
    entered[0].__exit__(None, None, None)
    assert verify(path) == []
    assert leftovers(tmp_path) == []


def test_a_save_sweeps_only_what_saves_have_left(tmp_path: Path) -> None:
    path = save_step(tmp_path, 1)
    theirs = [
        f"{pin_of(tmp_path, Place(1)).name}.partial-0123abcd",
        "notes.partial-0123abcd",
        "step-000000001.partial-x",
    ]
    for name in theirs:
        (path.parent / name).mkdir()
    ours = ["step-000000009.partial-0123abcd", "step-000000009-r1.partial-0123abcd", "latest.json.partial-0123abcd"]
    for name in ours:
        (path.parent / name).mkdir()
    save_step(tmp_path, 2)
    left = {found.name for found in path.parent.iterdir()}
    assert left.issuperset(theirs)
    assert not left.intersection(ours)


def test_a_save_takes_nothing_from_a_removal_that_has_not_decided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of `prune` in another process, which has moved a checkpoint aside and is about to see that it was pinned."""
    for step in (1, 2):
        save_step(tmp_path, step)
    real, moved = retention_module.move_directory, []

    def save_after(source: Path, target: Path) -> None:
        real(source, target)
        if not moved:
            moved.append(target)
            save_step(tmp_path, 3)

    monkeypatch.setattr(retention_module, "move_directory", save_after)
    assert prune(tmp_path, keep=1).spared == {Place(1): "another process removes it or has just put it back"}
    monkeypatch.undo()
    assert steps(tmp_path) == [1, 2, 3]
    assert verify(checkpoints_of(tmp_path) / Place(1).name) == []


def test_prune_reads_what_stays_and_removes_the_rest(tmp_path: Path) -> None:
    for step in range(1, 6):
        save_step(tmp_path, step)
    damage(tmp_path, 4)
    pin(tmp_path, 1)
    dry = prune(tmp_path, keep=2, dry_run=True)
    assert steps(tmp_path) == [1, 2, 3, 4, 5]
    done = prune(tmp_path, keep=2)
    assert dry == done
    assert done.removed == (Place(2),)
    assert done.spared == {Place(1): "pinned"}
    assert list(done.damaged) == [Place(4)]
    assert steps(tmp_path) == [1, 3, 4, 5]
    assert newest_good(tmp_path, log=pytest.fail) is not None


@pytest.mark.parametrize("pinned", [False, True])
def test_prune_never_removes_the_only_good_one(tmp_path: Path, pinned: bool) -> None:
    for step in (1, 2, 3):
        save_step(tmp_path, step)
    damage(tmp_path, 3)
    damage(tmp_path, 2)
    if pinned:
        pin(tmp_path, 1)
    assert prune(tmp_path, keep=1).removed == ()
    reader = newest_good(tmp_path, log=lambda line: None)
    assert reader is not None
    assert reader.step == 1
    damage(tmp_path, 1)
    assert prune(tmp_path, keep=1).removed == ()


def test_prune_looks_twice_at_a_hold_of_another_host(tmp_path: Path) -> None:
    for step in (1, 2):
        save_step(tmp_path, step)
    write_foreign_hold(tmp_path, 1)
    assert prune(tmp_path, keep=1, look_seconds=0.0).spared == {Place(1): f"read by process {os.getpid()} on elsewhere"}
    assert latest(tmp_path) == checkpoints_of(tmp_path) / Place(2).name
