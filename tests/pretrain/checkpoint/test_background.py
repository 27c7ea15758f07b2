"""The saver of one process: what it copies, when it waits, and what it says of a save that failed or hangs."""

import os
import random
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from data_pipeline.config import GaveUp, Refused
from pretrain.checkpoint import CheckpointReader, NotSaved, Phase, Piece, Saver, host_copy, latest, verify
from pretrain.checkpoint.host_copy import HostCopy
from pretrain.checkpoint.layout import Place, leftovers, places, pointer_of
from pretrain.group import Group
from tests.pretrain.checkpoint.cases import DESCRIPTION, cut, same_bits, tensors

WAIT = 60.0


class Gate:
    """Stops the saving thread at a phase until it is opened."""

    def __init__(self, phase: Phase) -> None:
        self.phase, self.reached, self.opened = phase, threading.Event(), threading.Event()

    def __call__(self, now: Phase) -> None:
        if now == self.phase:
            self.reached.set()
            assert self.opened.wait(WAIT)


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate("directory made")
    yield made
    made.opened.set()


def saver(run: Path, **changes: Any) -> Saver:
    return Saver(run, Group(), **{"keep": None, "timeout_seconds": WAIT, **changes})


def pieces(whole: dict[str, Tensor]) -> list[Piece]:
    return [Piece(name, tuple(tensor.shape), 0, tensor) for name, tensor in whole.items()]


def holds(path: Path | None, whole: dict[str, Tensor]) -> bool:
    assert path is not None
    assert verify(path) == []
    reader = CheckpointReader(path)
    return reader.names() == whole.keys() and all(
        same_bits(reader.read(name, 0, t.numel()), t.reshape(-1)) for name, t in whole.items()
    )


@pytest.mark.parametrize("seed", range(8))
def test_a_copy_is_the_same_elements_in_any_cut(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    chance = random.Random(seed)
    monkeypatch.setattr(host_copy, "CHUNK_BYTES", chance.choice([64, 128, 2**26]))
    copier = HostCopy()
    for again in range(3):
        whole = tensors(seed + again)
        own = [piece for share in cut(whole, 1, chance) for piece in share]
        copies = copier.take(own)
        for name, tensor in whole.items():
            parts = sorted((p for p in copies if p.name == name), key=lambda p: (p.start, p.tensor.numel()))
            assert {part.shape for part in parts} == {tuple(tensor.shape)}
            assert same_bits(torch.cat([part.tensor for part in parts]), tensor.reshape(-1))
        sources = {piece.tensor.untyped_storage().data_ptr() for piece in own}
        assert not sources & {copy.tensor.untyped_storage().data_ptr() for copy in copies if copy.tensor.numel()}


def test_the_copy_has_the_size_of_the_state_and_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    copier, state = HostCopy(), pieces({"x": torch.ones(10**6), "y": torch.ones(10**6, dtype=torch.bfloat16)})
    first = [copy.tensor.data_ptr() for copy in copier.take(state)]
    assert [copy.tensor.data_ptr() for copy in copier.take(state)] == first
    assert copier.num_bytes <= 6 * 10**6 + 128


def test_memory_that_was_prepared_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """`take` then asks the system for none."""
    copier, state = HostCopy(), pieces({"x": torch.ones(10**6), "y": torch.ones(10**6, dtype=torch.bfloat16)})
    copier.prepare(state)
    copier.wait()
    monkeypatch.setattr(host_copy.torch, "empty", lambda *_, **__: pytest.fail("more memory"))
    for copy, piece in zip(copier.take(state), state, strict=True):
        assert torch.equal(copy.tensor, piece.tensor)


def test_what_is_saved_is_the_state_at_the_start(tmp_path: Path, gate: Gate) -> None:
    whole = {name: tensor.clone() for name, tensor in tensors(1).items()}
    with saver(tmp_path, phase=gate) as saving:
        saving.start(step=1, pieces=pieces(whole), description=DESCRIPTION)
        assert gate.reached.wait(WAIT)
        for tensor in whole.values():
            tensor.zero_()
        assert latest(tmp_path) is None
        gate.opened.set()
        path = saving.join()
        assert saving.join() is None
    assert holds(path, tensors(1))
    assert latest(tmp_path) == path


class SlowCopy(HostCopy):
    """Begins only when it may."""

    def __init__(self) -> None:
        super().__init__()
        self.opened = threading.Event()

    def take(self, pieces: Iterable[Piece]) -> list[Piece]:
        assert self.opened.wait(WAIT)
        return super().take(pieces)


def test_the_state_may_change_once_it_is_copied(tmp_path: Path) -> None:
    whole = {name: tensor.clone() for name, tensor in tensors(1).items()}
    with saver(tmp_path) as saving:
        saving._copy = copy = SlowCopy()
        assert not saving.copying
        saving.start(step=1, pieces=pieces(whole), description=DESCRIPTION)
        assert saving.copying
        threading.Timer(0.3, copy.opened.set).start()
        saving.wait_for_copy()
        assert not saving.copying
        for tensor in whole.values():
            tensor.zero_()
        assert holds(saving.join(), tensors(1))


def test_a_copy_that_fails_keeps_nobody_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*_: object) -> list[Piece]:
        raise MemoryError("not enough")

    saving = saver(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(HostCopy, "take", no_memory)
        saving.start(step=1, pieces=pieces(tensors(1)), description=DESCRIPTION)
        saving.wait_for_copy()
        with pytest.raises(NotSaved, match="worker 0: MemoryError: not enough"):
            saving.join()
    saving.start(step=2, pieces=pieces(tensors(2)), description=DESCRIPTION)
    assert holds(saving.join(), tensors(2))


def test_at_most_one_is_in_flight(tmp_path: Path, gate: Gate) -> None:
    with saver(tmp_path, phase=gate) as saving:
        saving.start(step=1, pieces=pieces(tensors(1)), description=DESCRIPTION)
        assert gate.reached.wait(WAIT)
        threading.Timer(0.3, gate.opened.set).start()
        saving.start(step=2, pieces=pieces(tensors(2)), description=DESCRIPTION)
        assert Place(1) in places(tmp_path)
    assert places(tmp_path) == [Place(1), Place(2)]
    assert holds(latest(tmp_path), tensors(2))


def test_in_the_foreground_it_is_there_on_return(tmp_path: Path) -> None:
    saving = saver(tmp_path, background=False)
    saving.start(step=1, pieces=pieces(tensors(1)), description=DESCRIPTION, temporary=True)
    assert holds(latest(tmp_path), tensors(1))
    assert CheckpointReader(places_path(tmp_path)).manifest.temporary
    assert not saving.failed


def places_path(run: Path) -> Path:
    found = latest(run)
    assert found is not None
    return found


def fail_once(phase: Phase, error: Exception) -> Callable[[Phase], None]:
    left = [error]

    def fail(now: Phase) -> None:
        if now == phase and left:
            raise left.pop()

    return fail


@pytest.mark.parametrize(
    "ask", [Saver.join, Saver.close, lambda s: s.start(step=2, pieces=[], description=DESCRIPTION)]
)
def test_a_failure_is_told_and_the_next_save_works(tmp_path: Path, ask: Callable[[Saver], object]) -> None:
    saving = saver(tmp_path, phase=fail_once("block written", OSError(28, "No space left on device")))
    saving.start(step=1, pieces=pieces(tensors(1)), description=DESCRIPTION)
    while not saving.failed:
        pass
    with pytest.raises(NotSaved, match=r"worker 0: OSError: .*worker-00000.safetensors: No space left on device"):
        ask(saving)
    assert not saving.failed
    assert (latest(tmp_path), leftovers(tmp_path)) == (None, [])
    saving.start(step=2, pieces=pieces(tensors(2)), description=DESCRIPTION)
    assert holds(saving.join(), tensors(2))


@pytest.mark.parametrize("phase", ["directory made", "block written", "pieces written", "manifest written", "renamed"])
def test_storage_that_hangs_is_given_up_and_can_commit_nothing_later(tmp_path: Path, phase: Phase) -> None:
    hanging = Gate(phase)
    saving = saver(tmp_path, phase=lambda now: hanging(now) if hanging is gates[0] else None, timeout_seconds=1.0)
    gates: list[object] = [hanging]
    saving.start(step=1, pieces=pieces(tensors(1)), description=DESCRIPTION)
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "save"]
    assert hanging.reached.wait(WAIT)
    with pytest.raises(NotSaved, match=rf"worker 0: its storage hangs since '{phase}'; given up after 1 s"):
        saving.join()
    gates[0] = None
    saving.timeout_seconds = WAIT
    saving.start(step=2, pieces=pieces(tensors(2)), description=DESCRIPTION)
    path = saving.join()
    hanging.opened.set()
    thread.join(WAIT)
    assert not thread.is_alive()
    assert latest(tmp_path) == path
    assert holds(path, tensors(2))
    assert leftovers(tmp_path) == []


class HangingDisk:
    """Hangs when it is asked for the second time to bring a path of this name to the disk, until it is opened."""

    def __init__(self, name: str, time: int) -> None:
        self.name, self.left = re.compile(name), time
        self.reached, self.opened, self.real = threading.Event(), threading.Event(), os.fsync

    def __call__(self, descriptor: int) -> None:
        self.left -= bool(self.name.search(os.readlink(f"/proc/self/fd/{descriptor}")))
        if self.left == 0 and not self.reached.is_set():
            self.reached.set()
            assert self.opened.wait(WAIT)
        self.real(descriptor)


@pytest.mark.parametrize(
    ("name", "time", "moved"),
    [(r"/step-\d+\.partial-\w+$", 2, []), (r"/latest\.json\.partial-\w+$", 1, [Place(1)])],
    ids=["before the directory's move", "before the pointer's move"],
)
def test_a_hang_in_a_system_call_is_given_up_and_moves_nothing_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, time: int, moved: list[Place]
) -> None:
    disk = HangingDisk(name, time)
    monkeypatch.setattr(os, "fsync", disk)
    saving = saver(tmp_path, timeout_seconds=1.0)
    saving.start(step=1, pieces=pieces(tensors(1)), description=DESCRIPTION)
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "save"]
    assert disk.reached.wait(WAIT)
    with pytest.raises(NotSaved, match="worker 0: its storage hangs since"):
        saving.join()
    disk.opened.set()
    thread.join(WAIT)
    assert not thread.is_alive()
    assert places(tmp_path) == moved
    assert not pointer_of(tmp_path).exists()
    assert leftovers(tmp_path) == []


def test_a_removal_that_hangs_fails_no_save(tmp_path: Path) -> None:
    hanging, said = Gate("pointer moved"), []
    saving = saver(tmp_path, phase=hanging, warn=said.append, timeout_seconds=1.0, keep=1)
    for step in (1, 2):
        saving.start(step=step, pieces=pieces(tensors(step)), description=DESCRIPTION)
        assert hanging.reached.wait(WAIT)
        assert not saving.failed
        path = saving.join()
        assert path == latest(tmp_path)
        assert holds(path, tensors(step))
    assert len(said) == 2
    assert "step-000000001 is saved, but to remove what it outdates takes longer than 1 s" in said[0]
    hanging.opened.set()
    saving.start(step=3, pieces=pieces(tensors(3)), description=DESCRIPTION)
    saving.join()
    assert places(tmp_path) == [Place(3)]


def test_a_removal_that_fails_fails_no_save(tmp_path: Path) -> None:
    said: list[str] = []
    saving = saver(tmp_path, phase=fail_once("pointer moved", OSError(5, "Input/output error")), warn=said.append)
    saving.start(step=1, pieces=pieces(tensors(1)), description=DESCRIPTION)
    assert holds(saving.join(), tensors(1))
    (message,) = said
    assert "is saved, but not all that it outdates is removed: OSError" in message


def test_a_refusal_stays_one(tmp_path: Path) -> None:
    saving = saver(tmp_path, phase=fail_once("manifest written", Refused("another job has the run now")))
    saving.start(step=1, pieces=pieces(tensors(1)), description=DESCRIPTION)
    with pytest.raises(Refused, match=r"^another job has the run now$"):
        saving.join()
    assert (latest(tmp_path), leftovers(tmp_path)) == (None, [])


def test_a_hang_is_seen_without_waiting(tmp_path: Path, gate: Gate) -> None:
    saving = saver(tmp_path, phase=gate, timeout_seconds=0.2)
    assert not saving.failed
    saving.start(step=1, pieces=pieces(tensors(1)), description=DESCRIPTION)
    while not saving.failed:
        assert not gate.opened.is_set()
    with pytest.raises(NotSaved, match="hangs"):
        saving.join()


def end_with(error: BaseException, run: Path, gate: Gate) -> None:
    with saver(run, phase=gate) as saving:
        saving.start(step=1, pieces=pieces(tensors(1)), description=DESCRIPTION)
        assert gate.reached.wait(WAIT)
        if isinstance(error, GaveUp):
            threading.Timer(0.3, gate.opened.set).start()
        raise error


def test_an_orderly_end_waits_for_the_save(tmp_path: Path, gate: Gate) -> None:
    with pytest.raises(GaveUp):
        end_with(GaveUp("too much trouble"), tmp_path, gate)
    assert holds(latest(tmp_path), tensors(1))


def test_any_other_end_leaves_it(tmp_path: Path, gate: Gate) -> None:
    with pytest.raises(KeyboardInterrupt):
        end_with(KeyboardInterrupt(), tmp_path, gate)
    assert latest(tmp_path) is None
