"""Every flipped bit, cut, missing or foreign file is found and named, and the checkpoint before is taken instead."""

import errno
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from data_pipeline.config import BadInput, Corrupt
from pretrain.checkpoint import (
    CheckpointReader,
    Manifest,
    Piece,
    good_checkpoints,
    latest,
    list_checkpoints,
    move_pointer,
    newest_good,
    pin,
    verify,
)
from pretrain.checkpoint.layout import Place, pointer_of
from pretrain.checkpoint.pointer import pointed_place
from pretrain.checkpoint.read import newest_first
from pretrain.checkpoint.sealed import seal, unseal
from pretrain.group import Group
from tests.pretrain.checkpoint.cases import cut, save_shares, saved, tensors, together

FIRST, SECOND = "worker-00000.safetensors", "worker-00001.safetensors"


def small(run: Path, step: int) -> Path:
    """Two workers with one piece each."""
    halves = [Piece("x", (4,), 2 * rank, torch.tensor([step, rank], dtype=torch.int32)) for rank in range(2)]
    path = save_shares(run, step, [[half] for half in halves])[0]
    assert isinstance(path, Path)
    return path


def flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def flip_in_place(file: Path, bit: int) -> None:
    with open(file, "r+b") as opened:
        opened.seek(bit // 8)
        (byte,) = opened.read(1)
        opened.seek(bit // 8)
        opened.write(bytes([byte ^ 1 << bit % 8]))


def test_every_flipped_bit_of_a_worker_file_is_found(tmp_path: Path) -> None:
    path = small(tmp_path, 1)
    file = path / SECOND
    for bit in range(8 * file.stat().st_size):
        flip_in_place(file, bit)
        (problem,) = verify(path)
        assert f"{file}: piece x|2" in problem, bit
        if bit % 8 == 0:
            with pytest.raises(Corrupt, match=r"worker-00001.safetensors: piece x\|2"):
                CheckpointReader(path).read("x", 2, 1)
        flip_in_place(file, bit)
    assert verify(path) == []


def end_of(work: Callable[[], bool]) -> int:
    """How a process of its own ends that does the work: 0 where that returns True, less where a signal ends it."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(not work())
        finally:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("num_bytes", [4096, 1])
def test_a_file_that_is_cut_off_after_it_was_opened_is_damage_and_no_signal(tmp_path: Path, num_bytes: int) -> None:
    whole = {"w": torch.zeros(2), "x": torch.arange(2.0**16)}
    path = saved(tmp_path, 1, whole=whole)

    def read_on() -> bool:
        reader = CheckpointReader(path)
        reader.read("w", 0, 2)
        os.truncate(path / FIRST, num_bytes)
        problems = reader.stored.problems(list(reader.stored))
        return any(f"{path / FIRST}: piece x|" in problem and "the file ends before" in problem for problem in problems)

    assert end_of(read_on) == 0


def test_a_bad_sector_is_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small(tmp_path, 1)
    path = small(tmp_path, 2)
    real = os.preadv

    def read(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        if os.readlink(f"/proc/self/fd/{descriptor}") == str(path / SECOND):
            raise OSError(errno.EIO, "Input/output error")
        return real(descriptor, buffers, offset)

    monkeypatch.setattr(os, "preadv", read)
    assert verify(path) == [f"{path / SECOND}: piece x|2: Input/output error"]
    reader = newest_good(tmp_path, log=lambda line: None)
    assert reader is not None
    assert reader.step == 1


def test_damage_elsewhere_does_not_matter_to_a_read(tmp_path: Path) -> None:
    path = small(tmp_path, 1)
    content = (path / SECOND).read_bytes()
    (path / SECOND).write_bytes(flipped(content, 8 * len(content) - 1))
    reader = CheckpointReader(path)
    assert reader.read("x", 0, 2).tolist() == [1, 0]
    with pytest.raises(Corrupt, match="do not have the hash"):
        reader.read("x", 1, 2)


@pytest.mark.parametrize("name", ["manifest.json", "latest.json"])
def test_a_flipped_bit_in_any_byte_of_a_json_file_is_found(tmp_path: Path, name: str) -> None:
    path = small(tmp_path, 1)
    file = path / name if name == "manifest.json" else pointer_of(tmp_path)
    for byte in range(file.stat().st_size):
        flip_in_place(file, 8 * byte + byte % 8)
        with pytest.raises(Corrupt, match=str(file)):
            Manifest.read(path) if name == "manifest.json" else pointed_place(tmp_path)
        flip_in_place(file, 8 * byte + byte % 8)
    assert (Manifest.read(path).step, pointed_place(tmp_path)) == (1, Place(1))


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def lengthen(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"\0")


def flip(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(flipped(content, 8 * len(content) - 3))


def swap_for_the_step_before(file: Path) -> None:
    file.write_bytes((file.parent.parent / "step-000000001" / file.name).read_bytes())


@pytest.mark.parametrize("harm", [truncate, lengthen, Path.unlink, flip, swap_for_the_step_before])
@pytest.mark.parametrize("name", [FIRST, SECOND, "manifest.json"])
@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_harmed_checkpoint_falls_back_to_the_one_before(
    tmp_path: Path, harm: Callable[[Path], None], name: str, num_workers: int
) -> None:
    small(tmp_path, 1)
    path = small(tmp_path, 2)
    harm(path / name)
    problems = verify(path)
    assert str(path / name) in problems[0]
    logs: list[list[str]] = [[] for _ in range(num_workers)]
    readers = together(num_workers, lambda group: newest_good(tmp_path, log=logs[group.rank].append, group=group))
    assert [reader.step for reader in readers] == [1] * num_workers
    assert [len(lines) for lines in logs] == [1] + [0] * (num_workers - 1)
    assert str(path / name) in logs[0][0]


def test_the_workers_together_find_damage_in_any_piece(tmp_path: Path) -> None:
    shares = cut(tensors(2), 3, random.Random(0))
    path = save_shares(tmp_path, 2, shares)[0]
    pieces = [piece for _, piece in CheckpointReader(path).stored]
    good = {file: (path / file).read_bytes() for file in CheckpointReader(path).manifest.files}
    for number in range(len(pieces)):
        name, piece = list(CheckpointReader(path).stored)[number]
        content = good[piece.file]
        start = json_header(content)[f"{name}|{piece.start}"]["data_offsets"][0] + header_end(content)
        (path / piece.file).write_bytes(flipped(content, 8 * start))
        errors = together(2, lambda group: newest_good(tmp_path, log=lambda line: None, group=group))
        assert [type(error) for error in errors] == [Corrupt, Corrupt], name
        (path / piece.file).write_bytes(content)
    readers = together(2, lambda group: newest_good(tmp_path, log=pytest.fail, group=group))
    assert [reader.step for reader in readers] == [2, 2]


@pytest.mark.parametrize("failing", [0, 1])
def test_what_one_worker_cannot_examine_no_worker_goes_on_from(tmp_path: Path, failing: int) -> None:
    """It is no damage, so none goes back to the checkpoint before; and none waits for the others."""
    for step in (1, 2):
        small(tmp_path, step)

    def examine(group: Group) -> object:
        def is_wanted(_: Manifest) -> bool:
            if group.rank == failing:
                raise OSError(errno.ENOLCK, "No locks available")
            return True

        return next(good_checkpoints(tmp_path, log=pytest.fail, group=group, is_wanted=is_wanted))

    errors = together(2, examine)
    assert [type(error) for error in errors] == [OSError if rank == failing else Corrupt for rank in range(2)]
    assert f"cannot be examined: worker {failing}: OSError: [Errno" in str(errors[1 - failing])


def test_damage_that_one_worker_alone_sees_is_damage_to_all(tmp_path: Path) -> None:
    for step in (1, 2):
        small(tmp_path, step)

    def examine(group: Group) -> int:
        def is_wanted(manifest: Manifest) -> bool:
            if group.rank == 1 and manifest.step == 2:
                raise Corrupt("seen by one alone")
            return True

        return next(good_checkpoints(tmp_path, log=lambda line: None, group=group, is_wanted=is_wanted)).step

    assert together(2, examine) == [1, 1]


def header_end(content: bytes) -> int:
    return 8 + int.from_bytes(content[:8], "little")


def json_header(content: bytes) -> dict[str, Any]:
    header: dict[str, Any] = json.loads(content[8 : header_end(content)])
    return header


def test_all_damaged_is_an_error_and_none_at_all_is_not(tmp_path: Path) -> None:
    assert newest_good(tmp_path, log=pytest.fail) is None
    assert latest(tmp_path) is None
    for step in (1, 2):
        flip(small(tmp_path, step) / FIRST)
    lines: list[str] = []
    with pytest.raises(Corrupt, match="step-000000002, step-000000001"):
        newest_good(tmp_path, log=lines.append)
    assert len(lines) == 2


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """A manifest with a right hash and wrong content."""
    values = unseal(path / "manifest.json")
    change(values)
    (path / "manifest.json").write_bytes(seal(values))


COLUMNS = ("worker", "start", "count", "hash")


def set_piece(key: str, value: Any, number: int = 1) -> Callable[[dict[str, Any]], None]:
    return lambda values: values["tensors"]["x"]["rows"][number].__setitem__(COLUMNS.index(key), value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_piece("start", 3), r"x: no piece has elements 2:3, between x\|0 in worker-00000.*x\|3 in worker-00001"),
        (set_piece("start", 1), r"x: elements 1:2 are in x\|0 in worker-00000.*again in x\|1 in worker-00001"),
        (set_piece("count", 1), r"x: no piece has elements 3:4, between x\|2 in worker-00001.* and the end"),
        (set_piece("count", 3), r"x: x\|2 in worker-00001.* goes on to element 5, but the tensor has only 4"),
        (set_piece("start", 1, number=0), r"x: no piece has elements 0:1, between the start and x\|1"),
        (set_piece("count", 0), r"tensors.x.rows.1.2: Input should be greater than 0"),
        (set_piece("count", 1.5), r"tensors.x.rows.1.2"),
        (set_piece("start", -1), r"tensors.x.rows.1.1"),
        (set_piece("hash", "0"), r"tensors.x.rows.1.3"),
        (set_piece("worker", -1), r"tensors.x.rows.1.0"),
        (set_piece("worker", "../step-000000002/worker-00001.safetensors"), r"tensors.x.rows.1.0"),
        (set_piece("worker", 7), r"piece x\|2 is in worker-00007.safetensors, which is not in"),
        (lambda values: values["tensors"]["x"]["rows"][1].append(1), r"tensors.x.rows.1"),
        (lambda values: values["files"].update({"/etc/passwd": 1}), r"files./etc/passwd"),
        (lambda values: values["files"].update({"../worker-00001.safetensors": 1}), r"files...."),
        (lambda values: values.pop("temporary"), r"temporary: Field required"),
        (lambda values: values["tensors"]["x"].update(shape=[5]), r"x: no piece has elements 4:5"),
        (lambda values: values["tensors"]["x"].update(shape=[-1]), r"tensors.x.shape"),
        (lambda values: values["tensors"]["x"].update(dtype="C64"), r"tensors.x.dtype"),
        (lambda values: values["tensors"].update({"a|b": values["tensors"].pop("x")}), r"tensors.a\|b"),
        (lambda values: values.pop("files"), r"files: Field required"),
        (lambda values: values.update(step=9), r"step=9, which is not the directory's"),
    ],
)
def test_a_malformed_manifest_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    path = small(tmp_path, 1)
    edit(path, change)
    with pytest.raises(Corrupt, match=message):
        CheckpointReader(path)
    (problem,) = verify(path)
    assert str(path) in problem


def test_a_dtype_that_the_file_does_not_have_is_refused(tmp_path: Path) -> None:
    path = small(tmp_path, 1)
    edit(path, lambda values: values["tensors"]["x"].update(dtype="F32"))
    with pytest.raises(Corrupt, match=r"piece x\|0: is torch.int32 .*but torch.float32"):
        CheckpointReader(path).read("x", 0, 1)


def test_the_same_bytes_in_another_shape_are_refused(tmp_path: Path) -> None:
    path = small(tmp_path, 1)
    save_file({"x|2": torch.tensor([[1], [1]], dtype=torch.int32)}, path / SECOND)
    edit(path, lambda values: values["files"].update({SECOND: (path / SECOND).stat().st_size}))
    with pytest.raises(Corrupt, match=r"piece x\|2: is torch.int32 \[2, 1\], but torch.int32 \[2\] was written"):
        CheckpointReader(path).read("x", 2, 2)


def test_another_format_is_no_damage(tmp_path: Path) -> None:
    small(tmp_path, 1)
    path = small(tmp_path, 2)
    edit(path, lambda values: values.update(format=2))
    with pytest.raises(BadInput, match="format=2, but this version reads only format 1"):
        newest_good(tmp_path, log=pytest.fail)
    assert [info.complete for info in list_checkpoints(tmp_path)] == [True, False]


class Trap:
    """Unpickled, it leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


def test_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    path = small(tmp_path, 1)
    torch.save(Trap(tmp_path / "mark"), path / FIRST)
    edit(path, lambda values: values["files"].update({FIRST: (path / FIRST).stat().st_size}))
    with pytest.raises(Corrupt, match=FIRST):
        CheckpointReader(path).read("x", 0, 1)
    with pytest.raises(Corrupt):
        newest_good(tmp_path, log=lambda line: None)
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("harm", [truncate, flip, Path.unlink])
def test_without_a_pointer_the_last_step_is_taken(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    for step in (1, 2, 3):
        saved(tmp_path, step)
    move_pointer(tmp_path, Place(2))
    harm(pointer_of(tmp_path))
    lines: list[str] = []
    reader = newest_good(tmp_path, log=lines.append)
    assert reader is not None
    assert reader.step == 3
    assert latest(tmp_path) == reader.path
    assert bool(lines) == (harm is not Path.unlink)


def point_to_nothing(file: Path) -> None:
    move_pointer(file.parent.parent, Place(9))


@pytest.mark.parametrize("harm", [truncate, flip, Path.unlink, point_to_nothing])
def test_without_a_pointer_the_course_that_the_run_left_comes_last(
    tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    """Of steps 1 to 4, 3 and 4 are pinned; the run goes back to 2, and saves it again with what it leaves out."""
    for step in (1, 2, 3, 4):
        saved(tmp_path, step)
    for step in (3, 4):
        pin(tmp_path, step)
    saved(tmp_path, 2)
    path = saved(tmp_path, 3)
    assert latest(tmp_path) == path
    harm(pointer_of(tmp_path))
    assert latest(tmp_path) == path
    order = newest_first(tmp_path, log=lambda line: None)
    assert order == [Place(3, 1), Place(2, 1), Place(4), Place(3), Place(1)]
    assert [CheckpointReader(path.parent / place.name).manifest.course for place in order] == [2, 1, 0, 0, 0]


def test_a_fall_back_passes_over_the_course_that_the_run_left(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        saved(tmp_path, step)
    pin(tmp_path, 3)
    second, fourth = saved(tmp_path, 2), saved(tmp_path, 4)
    flip(fourth / FIRST)
    reader = newest_good(tmp_path, log=lambda line: None)
    assert reader is not None
    assert reader.path == second


def test_a_run_that_went_back_falls_back_further_and_not_to_the_course_it_left(tmp_path: Path) -> None:
    paths = {step: saved(tmp_path, step) for step in (1, 2, 3)}
    move_pointer(tmp_path, Place(2))
    assert latest(tmp_path) == paths[2]
    for step, then in ((2, 1), (1, 3)):
        flip(paths[step] / FIRST)
        reader = newest_good(tmp_path, log=lambda line: None)
        assert reader is not None
        assert reader.step == then


def test_a_pointer_to_nothing_is_said(tmp_path: Path) -> None:
    path = saved(tmp_path, 1)
    move_pointer(tmp_path, Place(5))
    lines: list[str] = []
    reader = newest_good(tmp_path, log=lines.append)
    assert reader is not None
    assert reader.path == path == latest(tmp_path)
    assert "step-000000005" in lines[0]
