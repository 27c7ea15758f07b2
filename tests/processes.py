"""Real worker processes for tests: gloo on loopback, a free port each, a time-out on every wait."""

import pickle
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]

_START = """
import sys, pickle, pathlib, datetime
sys.path[:0] = {path!r}
import torch
torch.set_num_threads(1)
from pretrain.group import join
rank, world, port, place = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), pathlib.Path(sys.argv[4])
import importlib.util
spec = importlib.util.spec_from_file_location("test_module", {file!r})
module = importlib.util.module_from_spec(spec)
sys.modules["test_module"] = module
spec.loader.exec_module(module)
group = join(rank, world, rank, address="127.0.0.1", port=port, timeout=datetime.timedelta(seconds=120),
             device=torch.device("cpu"))
result = getattr(module, {function!r})(group, *pickle.loads((place / "arguments").read_bytes()))
(place / f"result-{{rank}}").write_bytes(pickle.dumps(result))
group.barrier()
import os
os._exit(0)
"""


def free_port() -> int:
    """A port of the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run_workers(world_size: int, function: Callable[..., Any], *arguments: Any, timeout: float = 300) -> list[Any]:
    """`function(group, *arguments)` in `world_size` processes; what each returned, by rank.

    `function` is at the top level of a test file. A worker that fails makes this raise with its output.
    """
    file = sys.modules[function.__module__].__file__
    code = _START.format(path=[str(ROOT)], file=file, function=function.__name__)
    port = str(free_port())
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "arguments").write_bytes(pickle.dumps(arguments))
        workers = [
            subprocess.Popen(
                [sys.executable, "-c", code, str(rank), str(world_size), port, place],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for rank in range(world_size)
        ]
        try:
            outputs = [worker.communicate(timeout=timeout)[0] for worker in workers]
        finally:
            for worker in workers:
                worker.kill()
        failed = [output for worker, output in zip(workers, outputs, strict=True) if worker.returncode]
        assert not failed, "\n\n".join(failed)
        return [pickle.loads((Path(place) / f"result-{rank}").read_bytes()) for rank in range(world_size)]
