"""A run whose driver is a process on one of the test's hosts, and whose workers are on several."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from pretrain.trainer import Trainer
from tests.faults.test_workers_nodes import RecordSamples
from tests.faults.workers import ROOT
from tests.hosts import Host

DRIVER = """
import json, os, sys
from pathlib import Path
from cluster.ray_session import RAY_ENVIRONMENT
os.environ.update(RAY_ENVIRONMENT)
import ray
from rich.console import Console
from cluster.train import resume, train
from data_pipeline.config import SegueError
from tests.faults.host_runs import Record
from tests.faults.workers import experiment

address, run, place, seconds, workers, verb, *overrides = sys.argv[1:]

def tell(statuses):
    print(json.dumps([[s.rank, s.node, s.pid, s.step] for s in statuses]), flush=True)

record = Record(Path(place), float(seconds))
options = {"workers": int(workers), "on_status": tell, "console": Console(width=1000), "injector": record}
code = 0
try:
    ray.init(address=address, log_to_driver=False)
    if verb == "train":
        train(experiment(*overrides), Path(run), **options)
    else:
        resume(Path(run), **options)
    ray.shutdown()
except SegueError as error:
    print(f"error: {error}", flush=True)
    code = error.exit_code
os._exit(code)
"""


@dataclass(frozen=True)
class Record:
    """What every worker takes, below `samples`, and where it is, below `places`: in files of their processes."""

    directory: Path
    seconds: float = 0.0
    """That every step takes longer."""

    def __call__(self, moment: str, trainer: Trainer) -> None:
        if moment == "data":
            time.sleep(self.seconds)
        RecordSamples(self.directory / "samples")(moment, trainer)
        if moment == "restore":
            group = trainer.engine.group
            place = {"rank": group.rank, "local_rank": group.local_rank, "gloo": os.environ.get("GLOO_SOCKET_IFNAME")}
            (self.directory / "places" / f"{os.getpid()}.json").write_text(json.dumps(place))


class HostRun:
    """A driver at work; leaving the context ends it."""

    def __init__(
        self,
        host: Host,
        address: str,
        run: Path,
        place: Path,
        *overrides: str,
        workers: int,
        verb: str = "train",
        seconds: float = 0.2,
    ) -> None:
        """`seconds`: that every step takes longer, so that a test comes in time."""
        for part in ("samples", "places"):
            (place / part).mkdir(parents=True, exist_ok=True)
        self.process = subprocess.Popen(
            host.command(sys.executable, "-c", DRIVER, address, run, place, seconds, workers, verb, *overrides),
            cwd=ROOT, env=host.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        self.statuses: list[list[Any]] = []
        self.seen: dict[int, str] = {}
        """The node of every worker's process."""
        self.said: list[str] = []
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def __enter__(self) -> "HostRun":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.process.kill()
        self.process.wait()
        self.reader.join(10)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("[["):
                self.statuses = json.loads(line)
                self.seen |= {pid: node for _, node, pid, _ in self.statuses}
            else:
                self.said.append(line)

    def pids_on(self, host: Host) -> set[int]:
        """Of the workers that now train there."""
        return {pid for _, node, pid, _ in self.statuses if node == host.address}

    @property
    def output(self) -> str:
        return "".join(self.said)

    def wait(self, until: Callable[[list[list[Any]]], bool], *, seconds: float = 180.0) -> float:
        """Until this holds of the workers' statuses (rank, node, pid, step); returns how long it took."""
        begun = time.monotonic()
        while not (self.statuses and until(self.statuses)):
            assert self.process.poll() is None, self.output
            assert time.monotonic() - begun < seconds, (self.statuses, self.output)
            time.sleep(0.05)
        return time.monotonic() - begun

    def wait_for_step(self, step: int, *, workers: int | None = None, seconds: float = 180.0) -> float:
        """Until the run is so far, with so many workers."""
        return self.wait(lambda statuses: statuses[0][3] >= step and workers in (None, len(statuses)), seconds=seconds)

    def end(self, *, seconds: float = 300.0) -> int:
        """Wait for its end; returns the exit code."""
        code = self.process.wait(seconds)
        self.reader.join(10)
        return code
