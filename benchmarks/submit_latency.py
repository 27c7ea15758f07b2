"""From `submit` to the first training step, on a warm cluster, against Ray's own `ray job submit` of an empty script.

    python -m benchmarks.submit_latency

A cluster of one node is started on this machine (`segue cluster start`). Then, in turns, so many times:

    ours  `segue submit` of a Transformer-XL for two workers under DeepSpeed, until its first step is in metrics.jsonl
    peer  `ray job submit` of a script that only imports torch and deepspeed, as every worker of ours does, until it
          has ended

Ours by phase: the command (checks, packing, upload), the job's driver (Ray starts it; it imports and checks), the
workers (placed, started, imports, the process group, the model), the first step. Seconds of the wall clock, medians;
compared is what both printed: that they ended well.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.table import Figure, conclude

TIMES = 3
GOAL = 2.0
ROOT = Path(__file__).resolve().parents[1]
LAUNCH = ROOT / "launch.py"
ENGINE = "engine={kind: deepspeed, zero_stage: 1, device: cpu}"
RECIPE = ("tiny_transformer_xl", "steps=2", "evaluate.every=null", ENGINE)
PHASES = ("command", "driver", "workers", "first step")
POLL_SECONDS = 0.02
MOST_SECONDS = 180.0
SCRIPT = "import torch, deepspeed\nprint('imported')\n"


class User:
    """A command line with a home directory of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        own = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "XDG_", "SEGUE_"))}
        self.environment = own | {"HOME": str(home), "OMP_NUM_THREADS": "1"}

    def run(self, *command: str | Path, **more: str) -> str:
        """Its output; raises CalledProcessError where it fails."""
        environment = self.environment | more
        return subprocess.run(
            [*map(str, command)], cwd=self.home, env=environment, check=True, capture_output=True, text=True
        ).stdout

    def segue(self, *arguments: str) -> str:
        return self.run(sys.executable, LAUNCH, *arguments)


def ours(user: User, address: str, name: str) -> tuple[dict[str, float], bool]:
    """Seconds of each phase, and whether the job then ended well."""
    run = user.home / "runs" / name
    began = time.monotonic()
    job = json.loads(user.segue("submit", *RECIPE, "--workers", "2", "--name", name, "--address", address, "--json"))
    moments = [began, time.monotonic()]
    for seen in (
        lambda: has_event(run, "submitted"),
        lambda: has_event(run, "started"),
        lambda: (run / "metrics.jsonl").is_file() and bool((run / "metrics.jsonl").read_bytes()),
    ):
        wait_for(seen)
        moments.append(time.monotonic())
    state: dict[str, Any] = {"state": "running"}
    while state["state"] in ("pending", "running"):
        state = json.loads(user.segue("status", job["id"], "--address", address, "--json"))
    phases = [later - earlier for earlier, later in pairwise(moments)]
    return dict(zip(PHASES, phases, strict=True)), state["state"] == "succeeded"


def peer(user: User, address: str) -> tuple[float, bool]:
    """Seconds until the empty script has ended, and whether it did well."""
    began = time.monotonic()
    ray = Path(sys.executable).with_name("ray")
    script = ("--working-dir", user.home / "empty", "--", "python", "script.py")
    said = user.run(ray, "job", "submit", "--address", address, *script, RAY_AUTH_MODE="token")
    return time.monotonic() - began, "imported" in said and "succeeded" in said


def has_event(run: Path, kind: str) -> bool:
    path = run / "events.jsonl"
    return path.is_file() and f'"event": "{kind}"' in path.read_text()


def wait_for(seen: Callable[[], bool]) -> None:
    deadline = time.monotonic() + MOST_SECONDS
    while not seen():
        if time.monotonic() > deadline:
            raise TimeoutError(f"nothing came of the job for {MOST_SECONDS:.0f} s")
        time.sleep(POLL_SECONDS)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        user = User(Path(folder))
        (user.home / "empty").mkdir()
        (user.home / "empty" / "script.py").write_text(SCRIPT)
        user.segue("cluster", "start", "--num-cpus", "2", "--name", "benchmark")
        try:
            address = json.loads(user.segue("cluster", "status", "--json"))["clusters"][0]["dashboard"]
            turns = [(ours(user, address, f"run-{turn}"), peer(user, address)) for turn in range(TIMES)]
        finally:
            user.segue("cluster", "stop", "benchmark", "--force")
    phases = {name: statistics.median(mine[0][name] for mine, _ in turns) for name in PHASES}
    whole = statistics.median(sum(mine[0].values()) for mine, _ in turns)
    empty = statistics.median(seconds for _, (seconds, _) in turns)
    notes = [f"{name:12} {seconds:6.2f} s" for name, seconds in phases.items()]
    notes += [f"{'in all':12} {whole:6.2f} s", f"{'ray job':12} {empty:6.2f} s"]
    well = all(mine[1] and other[1] for mine, other in turns)
    figures = [Figure("submit to first step / ray job submit of an empty script", whole / empty, GOAL)]
    conclude("submit_latency", figures, same=well, notes=notes)


if __name__ == "__main__":
    main()
