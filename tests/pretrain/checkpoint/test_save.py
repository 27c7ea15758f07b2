"""A checkpoint comes to be as a whole or not at all: failures, full disks, kill -9 in every phase of a save."""

import os
import random
import resource
import shutil
import signal
import time
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple, get_args

import pytest
import torch
from torch import Tensor

from pretrain.checkpoint import (
    CheckpointReader,
    Description,
    NotSaved,
    Phase,
    Piece,
    check_space,
    durable,
    latest,
    list_checkpoints,
    move_pointer,
    newest_good,
    retain,
    save,
    verify,
)
from pretrain.checkpoint.layout import Place, checkpoints_of, leftovers, places, pointer_of
from pretrain.group import Group
from tests.pretrain.checkpoint.cases import DESCRIPTION, cut, same_bits, save_shares, saved, tensors

PHASES: tuple[Phase, ...] = get_args(Phase)


def holds(path: Path, whole: dict[str, Tensor]) -> bool:
    """Whether the checkpoint is sound and has these tensors, all of them and no others."""
    reader = CheckpointReader(path)
    return (
        verify(path) == []
        and reader.names() == whole.keys()
        and all(same_bits(reader.read(name, 0, t.numel()), t.reshape(-1)) for name, t in whole.items())
    )


def everything(run: Path) -> dict[str, bytes]:
    """Every file of the run and its content."""
    return {str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*") if path.is_file()}


def test_a_run_goes_on_from_its_last_save(tmp_path: Path) -> None:
    for step in (5, 1_000_000, 999_999_999):
        path = saved(tmp_path, step, num_workers=2)
        assert path == checkpoints_of(tmp_path) / f"step-{step:09d}"
        assert latest(tmp_path) == path
    names = sorted(path.name for path in checkpoints_of(tmp_path).iterdir() if path.is_dir())
    assert [int(name.removeprefix("step-")) for name in names] == [5, 1_000_000, 999_999_999]
    infos = list_checkpoints(tmp_path)
    assert [(info.step, info.num_workers, info.complete) for info in infos] == [
        (step, 2, True) for step in (5, 1_000_000, 999_999_999)
    ]
    for info in infos:
        assert info.created is not None
        assert abs(info.created.timestamp() - time.time()) < 600
        assert info.bytes == sum(path.stat().st_size for path in info.path.iterdir())


def test_phases_come_in_order(tmp_path: Path) -> None:
    seen: dict[int, list[Phase]] = {0: [], 1: []}
    whole = {"x": torch.arange(8.0)}
    shares = [[Piece("x", (8,), 4 * rank, whole["x"][4 * rank :][:4])] for rank in range(2)]
    save_shares(tmp_path, 1, shares, phase=lambda rank, phase: seen[rank].append(phase))
    assert seen[0] == list(PHASES)
    assert seen[1] == list(PHASES[:3])


class Event(NamedTuple):
    kind: str
    path: str


def test_everything_is_on_the_disk_before_the_next_move(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path, 1)
    events: list[Event] = []
    real_sync, real_rename, real_replace = os.fsync, os.rename, os.replace

    def sync(descriptor: int) -> None:
        events.append(Event("sync", os.readlink(f"/proc/self/fd/{descriptor}")))
        real_sync(descriptor)

    def rename(source: Path, target: Path) -> None:
        events.append(Event("rename", str(target)))
        real_rename(source, target)

    def replace(source: Path, target: Path) -> None:
        events.append(Event("replace", str(target)))
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "rename", rename)
    monkeypatch.setattr(os, "replace", replace)
    path = saved(tmp_path, 2)
    folder = str(checkpoints_of(tmp_path))
    before = list(takewhile(lambda event: event != Event("rename", str(path)), events))
    after = events[len(before) + 1 :]
    partial = before[-1].path
    assert partial.startswith(f"{path}.partial-")
    assert [event.kind for event in before] == ["sync", "sync", "replace", "sync", "sync"]
    assert before[0].path == f"{partial}/worker-00000.safetensors"
    assert before[1].path.startswith(f"{partial}/manifest.json.partial-")
    assert before[2:] == [
        Event("replace", f"{partial}/manifest.json"),
        Event("sync", partial),
        Event("sync", partial),
    ]
    assert after[0] == Event("sync", folder)
    assert after[1].path.startswith(f"{pointer_of(tmp_path)}.partial-")
    assert after[2:] == [Event("replace", str(pointer_of(tmp_path))), Event("sync", folder)]


def fail_at(rank: int, phase: Phase) -> Callable[[int, Phase], None]:
    def fail(own: int, now: Phase) -> None:
        if (own, now) == (rank, phase):
            raise OSError(f"no more of {phase}")

    return fail


@pytest.mark.parametrize(
    ("rank", "phase"),
    [
        *((rank, phase) for rank in range(3) for phase in ("directory made", "block written", "pieces written")),
        (0, "manifest written"),
    ],
)
def test_a_failure_of_one_worker_is_an_error_on_all_and_changes_nothing(
    tmp_path: Path, rank: int, phase: Phase
) -> None:
    path = saved(tmp_path, 1, num_workers=3)
    before = everything(tmp_path)
    shares = [[Piece("x", (300,), start, torch.arange(start, start + 100.0))] for start in (0, 100, 200)]
    errors = save_shares(tmp_path, 2, shares, phase=fail_at(rank, phase))
    assert [type(error) for error in errors] == [NotSaved] * 3
    assert len({str(error) for error in errors}) == 1
    assert f"worker {rank}: OSError" in str(errors[0])
    assert f"no more of {phase}" in str(errors[0])
    assert everything(tmp_path) == before
    assert leftovers(tmp_path) == []
    assert latest(tmp_path) == path
    assert holds(save_shares(tmp_path, 2, shares)[0], {"x": torch.arange(300.0)})


def piece(start: int, length: int, *, name: str = "x", whole: int = 8, dtype: torch.dtype = torch.float32) -> Piece:
    return Piece(name, (whole,), start, torch.zeros(length, dtype=dtype))


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ([[piece(0, 4)], [piece(5, 3)]], r"x: no piece has elements 4:5"),
        (
            [[piece(0, 5)], [piece(4, 4)]],
            r"x: elements 4:5 are in x\|0 in worker-00000.* and again in x\|4 in worker-00001",
        ),
        ([[piece(0, 8)], [piece(0, 8)]], r"x: elements 0:8 are in x\|0 in worker-0000\d.* and again in"),
        ([[piece(0, 4)], []], r"x: no piece has elements 4:8, between x\|0 in worker-00000.* and the end"),
        ([[piece(0, 4)], [piece(4, 5)]], r"worker 1: ValueError: x: elements 4:9 are not all in a tensor of 8"),
        ([[piece(0, 4)], [piece(4, 4, dtype=torch.int32)]], r"x: I32 of shape \(8,\) on worker 1, but F32"),
        ([[piece(0, 4)], [piece(4, 5, whole=9)]], r"x: F32 of shape \(9,\) on worker 1, but F32 of shape \(8,\)"),
        ([[piece(0, 8, name="a|b")], []], r"worker 0: ValueError: tensor name 'a\|b'"),
        ([[piece(0, 8, name="")], []], r"worker 0: ValueError: tensor name ''"),
    ],
)
def test_pieces_that_make_no_whole_are_refused(tmp_path: Path, shares: list[list[Piece]], message: str) -> None:
    errors = save_shares(tmp_path, 1, shares)
    for error in errors:
        with pytest.raises(NotSaved, match=message):
            raise error
    assert everything(tmp_path) == {}
    assert latest(tmp_path) is None


@pytest.mark.parametrize("harm", [Path.unlink, lambda file: os.truncate(file, 1)], ids=["lost", "cut off"])
def test_a_file_that_the_leader_does_not_find_as_it_was_written_is_not_committed(
    tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    path = saved(tmp_path, 1)
    before = everything(tmp_path)

    class Harmed(Group):
        """Between what a worker reports and what the leader sees of it, as of storage that is not one."""

        def gather_to_leader(self, value: Any) -> list[Any]:
            for file in checkpoints_of(tmp_path).glob("*.partial-*/worker-*"):
                harm(file)
            return super().gather_to_leader(value)

    with pytest.raises(NotSaved, match=r"worker 0: ValueError: .*worker-00000\.safetensors: (No such|1 bytes long)"):
        save(tmp_path, step=2, pieces=[piece(0, 8)], description=DESCRIPTION, group=Harmed())
    assert everything(tmp_path) == before
    assert latest(tmp_path) == path


def test_a_failure_while_making_the_pieces_is_heard_by_all(tmp_path: Path) -> None:
    class Failing(list[Piece]):
        def __iter__(self) -> Any:
            yield piece(4, 2)
            raise RuntimeError("optimizer gone")

    errors = save_shares(tmp_path, 1, [[piece(0, 4)], Failing()])
    assert [type(error) for error in errors] == [NotSaved] * 2
    assert "worker 1: RuntimeError: optimizer gone" in str(errors[0])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_probe_that_is_no_number_is_not_saved(tmp_path: Path, value: float) -> None:
    (error,) = save_shares(tmp_path, 1, [[piece(0, 8)]], description=Description(probe={"nats": value}))
    assert isinstance(error, NotSaved)
    assert "JSON" in str(error)
    assert everything(tmp_path) == {}


def test_too_little_space_is_said_in_numbers_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path, 1)
    before = everything(tmp_path)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=2_000_000))
    whole = {"x": torch.zeros(600_000)}
    shares = cut(whole, 2, random.Random(0))
    made: list[Phase] = []
    errors = save_shares(tmp_path, 2, shares, phase=lambda rank, phase: made.append(phase))
    for error in errors:
        with pytest.raises(
            NotSaved, match=r"needs 2,5\d\d,\d\d\d bytes in .*checkpoints, where 2,000,000 bytes are free"
        ):
            raise error
    assert made == []
    assert everything(tmp_path) == before
    assert latest(tmp_path) == path
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=3_000_000))
    assert holds(save_shares(tmp_path, 2, shares)[0], whole)


def test_space_can_be_checked_before_there_is_a_run(tmp_path: Path) -> None:
    check_space(tmp_path / "runs" / "new", 1)
    with pytest.raises(NotSaved, match=r"needs 1,000,000,000,000,000,000 bytes"):
        check_space(tmp_path / "runs" / "new", 10**18)
    assert everything(tmp_path) == {}


def test_a_disk_that_fills_up_while_writing_changes_nothing(tmp_path: Path) -> None:
    path = saved(tmp_path, 1)
    before = everything(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        (error,) = save_shares(tmp_path, 2, cut({"x": torch.zeros(100_000)}, 1, random.Random(0)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert isinstance(error, NotSaved)
    assert "worker-00000.safetensors: File too large" in str(error)
    assert everything(tmp_path) == before
    assert latest(tmp_path) == path


def test_a_step_saved_again_is_replaced(tmp_path: Path) -> None:
    first = saved(tmp_path, 2, whole=tensors(2))
    assert holds(first, tensors(2))
    for seed in (3, 4):
        again = saved(tmp_path, 2, whole=tensors(seed), num_workers=2)
        assert latest(tmp_path) == again
        assert holds(again, tensors(seed))
        assert [info.path for info in list_checkpoints(tmp_path)] == [again]


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    shares = cut(tensors(), 2, random.Random(0))
    for step in range(1, 6):
        save_shares(tmp_path, step, shares, keep=2)
        assert [place.step for place in places(tmp_path)] == [max(step - 1, 1), step][-min(step, 2) :]
    assert leftovers(tmp_path) == []
    with pytest.raises(ValueError, match="keep=0"):
        retain(tmp_path, keep=0)


def test_an_incomplete_checkpoint_counts_as_none_when_others_are_removed(tmp_path: Path) -> None:
    paths = {step: saved(tmp_path, step) for step in (1, 2, 3, 4)}
    (paths[4] / "worker-00000.safetensors").unlink()
    (paths[2] / "manifest.json").unlink()
    assert retain(tmp_path, keep=1) == [Place(2), Place(1)]
    assert latest(tmp_path) == paths[3]


def test_what_the_run_goes_on_from_is_kept_before_later_steps(tmp_path: Path) -> None:
    paths = {step: saved(tmp_path, step) for step in (1, 2, 3)}
    move_pointer(tmp_path, Place(1))
    assert retain(tmp_path, keep=1) == [Place(3), Place(2)]
    assert latest(tmp_path) == paths[1]


def save_until(run: Path, step: int, whole: dict[str, Tensor], until: Phase) -> int:
    """Save in a process of its own that kills itself in the phase; its exit status."""
    child = os.fork()
    if child == 0:

        def phase(now: Phase) -> None:
            if now == until:
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            pieces = [Piece(name, tuple(tensor.shape), 0, tensor) for name, tensor in whole.items()]
            save(run, step=step, pieces=pieces, description=DESCRIPTION, group=Group(), phase=phase)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("step", [2, 1], ids=["next step", "same step again"])
def test_kill_9_in_any_phase_leaves_the_older_or_the_newer_whole(tmp_path: Path, phase: Phase, step: int) -> None:
    older, newer = tensors(1), {**tensors(2), "weights/new": torch.ones(3)}
    saved(tmp_path, 1, whole=older)
    assert save_until(tmp_path, step, newer, phase) == -signal.SIGKILL
    moved = PHASES.index(phase) >= PHASES.index("pointer moved")
    lines: list[str] = []
    reader = newest_good(tmp_path, log=lines.append)
    assert reader is not None
    assert lines == []
    assert latest(tmp_path) == reader.path
    assert holds(reader.path, newer if moved else older)
    assert all(info.complete and verify(info.path) == [] for info in list_checkpoints(tmp_path))
    assert bool(leftovers(tmp_path)) == (PHASES.index(phase) < PHASES.index("renamed"))

    newest = saved(tmp_path, step, whole=tensors(3))
    assert leftovers(tmp_path) == []
    assert latest(tmp_path) == newest
    assert holds(newest, tensors(3))
    assert [place.step for place in places(tmp_path)] == sorted({1, step})


@pytest.mark.parametrize("phase", PHASES)
def test_kill_9_in_the_first_save_of_a_run(tmp_path: Path, phase: Phase) -> None:
    assert save_until(tmp_path, 1, tensors(1), phase) == -signal.SIGKILL
    path = latest(tmp_path)
    assert (path is not None) == (PHASES.index(phase) >= PHASES.index("renamed"))
    assert path is None or holds(path, tensors(1))
    assert holds(saved(tmp_path, 1, whole=tensors(3)), tensors(3))
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("when", ["before the pointer's move", "in the removal of the older"])
def test_kill_9_between_two_system_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    older, newer = tensors(1), tensors(2)
    saved(tmp_path, 1, whole=older)
    if when == "before the pointer's move":
        real = os.replace

        def replace(source: Path, target: Path) -> None:
            if Path(target).name == "latest.json":
                os.kill(os.getpid(), signal.SIGKILL)
            real(source, target)

        monkeypatch.setattr(os, "replace", replace)
    else:

        def remove_half(path: Path, ignore_errors: bool = False) -> None:
            next(path.glob("*.safetensors")).unlink()
            os.kill(os.getpid(), signal.SIGKILL)

        monkeypatch.setattr(durable.shutil, "rmtree", remove_half)
    assert save_until(tmp_path, 1, newer, "older removed") == -signal.SIGKILL
    monkeypatch.undo()
    path = latest(tmp_path)
    assert path is not None
    assert holds(path, older if when == "before the pointer's move" else newer)
    assert len(leftovers(tmp_path)) == 1
    assert all(info.complete for info in list_checkpoints(tmp_path))
    saved(tmp_path, 2)
    assert leftovers(tmp_path) == []


def test_the_next_save_removes_what_a_killed_one_had_replaced(tmp_path: Path) -> None:
    saved(tmp_path, 1, whole=tensors(1))
    assert save_until(tmp_path, 1, tensors(2), "pointer moved") == -signal.SIGKILL
    assert places(tmp_path) == [Place(1), Place(1, revision=1)]
    saved(tmp_path, 2)
    assert places(tmp_path) == [Place(1, revision=1), Place(2)]


def test_a_replaced_checkpoint_stays_where_its_replacement_is_incomplete(tmp_path: Path) -> None:
    saved(tmp_path, 1, whole=tensors(1))
    assert save_until(tmp_path, 1, tensors(2), "pointer moved") == -signal.SIGKILL
    (checkpoints_of(tmp_path) / Place(1, revision=1).name / "worker-00000.safetensors").write_bytes(b"")
    assert latest(tmp_path) == checkpoints_of(tmp_path) / Place(1).name
    assert save_until(tmp_path, 2, tensors(3), "directory made") == -signal.SIGKILL
    path = latest(tmp_path)
    assert path is not None
    assert holds(path, tensors(1))
