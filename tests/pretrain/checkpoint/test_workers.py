"""Real worker processes, gloo between them: saving, failing, falling back and dying together."""

import os
import signal
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from pretrain.checkpoint import CheckpointReader, NotSaved, Phase, Piece, compare, latest, newest_good, save, verify
from pretrain.checkpoint.layout import leftovers
from pretrain.group import Group, join
from tests.pretrain.checkpoint.cases import DESCRIPTION, save_shares
from tests.processes import free_port, run_workers

LENGTH = 1000


def pieces(step: int, rank: int, num_workers: int) -> list[Piece]:
    """Weights and moments that depend on the step alone, cut equally."""
    each = LENGTH // num_workers
    values = torch.arange(rank * each, (rank + 1) * each) * step
    names = {"weights/w": values.float(), "exp_avg/w": values.bfloat16(), "carry/memory": values % 2 == 0}
    return [Piece(name, (LENGTH,), rank * each, tensor) for name, tensor in names.items()]


def save_and_fall_back(group: Group, run: Path) -> dict[str, Any]:
    """Saves 100, fails to save 200, saves it, and finds it damaged."""

    def fail(phase: Phase) -> None:
        if phase == "pieces written" and group.rank == 1:
            raise ValueError("no")

    def save_step(step: int, **options: Any) -> Path:
        own = pieces(step, group.rank, group.world_size)
        return save(run, step=step, pieces=own, description=DESCRIPTION, group=group, **options)

    first = save_step(100)
    try:
        save_step(200, phase=fail)
    except NotSaved as raised:
        error = str(raised)
    still = latest(run)
    second = save_step(200)
    reader = newest_good(run, log=print, group=group)
    assert reader is not None
    group.barrier()
    if group.rank == 1:
        file = second / "worker-00000.safetensors"
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
    group.barrier()
    lines: list[str] = []
    fallen_back = newest_good(run, log=lines.append, group=group)
    assert fallen_back is not None
    return {
        "first": first,
        "error": error,
        "still": still,
        "good": reader.path == second,
        "fallen back": fallen_back.path,
        "lines": len(lines),
    }


def test_two_workers_save_and_fall_back_together(tmp_path: Path) -> None:
    results = run_workers(2, save_and_fall_back, tmp_path / "two", timeout=120)
    assert [result.pop("lines") for result in results] == [1, 0]
    assert results[0] == results[1]
    first = tmp_path / "two" / "checkpoints" / "step-000000100"
    assert results[0]["first"] == results[0]["still"] == results[0]["fallen back"] == first
    assert results[0]["error"] == "checkpoint not saved: worker 1: ValueError: no"
    assert results[0]["good"]
    assert leftovers(tmp_path / "two") == []
    alone = save_shares(tmp_path / "one", 100, [pieces(100, 0, 1)])[0]
    assert compare(CheckpointReader(alone), CheckpointReader(first)).equal


def worker_that_may_die(rank: int, port: int, run: Path, heard: int) -> None:
    """Worker 1 kills itself with its file written; worker 0 writes to `heard` what it was told."""
    timeout = timedelta(seconds=60)
    group = join(rank, 2, rank, address="127.0.0.1", port=port, timeout=timeout, device=torch.device("cpu"))

    def die(phase: Phase) -> None:
        if phase == "pieces written" and rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    try:
        own = pieces(300, rank, 2)
        save(run, step=300, pieces=own, description=DESCRIPTION, group=group, phase=die)
    except Exception as error:
        os.write(heard, str(error).encode())


def test_a_worker_that_is_killed_while_saving_hangs_nobody(tmp_path: Path) -> None:
    path = save_shares(tmp_path, 100, [pieces(100, 0, 1)])[0]
    port = free_port()
    hears, heard = os.pipe()
    children = []
    began = time.monotonic()
    for rank in range(2):
        child = os.fork()
        if child == 0:
            try:
                worker_that_may_die(rank, port, tmp_path, heard)
            finally:
                os._exit(0)
        children.append(child)
    os.close(heard)
    statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    message = os.read(hears, 10_000)
    os.close(hears)
    assert statuses == [0, -signal.SIGKILL]
    assert message
    assert time.monotonic() - began < 30
    assert latest(tmp_path) == path
    assert verify(path) == []
    assert save_shares(tmp_path, 300, [pieces(300, 0, 1)])[0] == latest(tmp_path)
    assert leftovers(tmp_path) == []
