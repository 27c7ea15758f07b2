"""Real worker processes for tests: gloo on loopback, a free port each, a time-out on every wait."""

import importlib.util
import multiprocessing
import os
import pickle
import random
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import torch

from pretrain.group import join

ROOT = Path(__file__).parents[1]

TESTS = "SEGUE_TESTS"
"""A variable with the number of the process that runs the tests."""

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["torch._dynamo"])
"""What every optimizer imports, and takes seconds; Segue itself is imported by each worker."""


def free_port() -> int:
    """A port of the loopback interface that nobody listens on now, and that the system gives to nobody meanwhile: it
    is outside of the range from which it does."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def of_this_test() -> dict[str, str]:
    """For the environment of what outlives the process that starts it: by it, it is found once the tests are gone."""
    return {TESTS: str(os.getpid())}


def end_leftovers() -> None:
    """Kill what tests that were themselves killed have left running."""
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            tests = process.environ().get(TESTS)
            if tests is not None and not psutil.pid_exists(int(tests)):
                process.kill()


def run_workers(world_size: int, function: Callable[..., Any], *arguments: Any, timeout: float = 300) -> list[Any]:
    """`function(group, *arguments)` in `world_size` processes; what each returned, by rank.

    `function` is at the top level of a test file. A worker that fails makes this raise with its output.
    """
    file = sys.modules[function.__module__].__file__
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        (place / "arguments").write_bytes(pickle.dumps(arguments))
        meeting = (world_size, free_port(), place, dict(os.environ))
        workers = [
            FORKS.Process(target=_work, args=(rank, *meeting, file, function.__name__)) for rank in range(world_size)
        ]
        try:
            for worker in workers:
                worker.start()
            deadline = time.monotonic() + timeout
            for worker in workers:
                worker.join(max(0.0, deadline - time.monotonic()))
        finally:
            for worker in workers:
                worker.kill()
        failed = [(place / f"output-{rank}").read_text() for rank, worker in enumerate(workers) if worker.exitcode != 0]
        assert not failed, "\n\n".join(failed)
        return [pickle.loads((place / f"result-{rank}").read_bytes()) for rank in range(world_size)]


def _work(
    rank: int, world_size: int, port: int, place: Path, environment: dict[str, str], file: str, function: str
) -> None:
    """Be one of the workers; the process ends with it."""
    output = os.open(place / f"output-{rank}", os.O_WRONLY | os.O_CREAT)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(ROOT)
    torch.set_num_threads(1)
    group = join(
        rank,
        world_size,
        rank,
        address="127.0.0.1",
        port=port,
        timeout=timedelta(seconds=120),
        device=torch.device("cpu"),
    )
    spec = importlib.util.spec_from_file_location("test_module", file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["test_module"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    result = getattr(module, function)(group, *pickle.loads((place / "arguments").read_bytes()))
    (place / f"result-{rank}").write_bytes(pickle.dumps(result))
    group.barrier()
    os._exit(0)
