"""A cluster of two nodes on this machine that loses one and gets it back while a job trains: `make cluster-demo`.

Everything is done by the command line, as a user would; each command is shown. The run is then computed once more,
quietly, without the cluster, and must have read the same samples in every step and have come to the same loss.
"""

import json
import math
import secrets
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from cluster import node_record
from cluster.tables import table
from data_pipeline.config import GaveUp, SegueError
from pretrain.metrics_log import read_rows
from pretrain.run_directory import read_events

RECIPE = "quickstart"
CHANGES = ("checkpoint.every=100",)
"""Sooner than in the recipe, so that all of it takes minutes; it changes nothing of what is computed."""
HEAD, NODE = "demo-head", "demo-node"
LOSE_AFTER, RETURN_AFTER = 1.25, 1.3
"""In checkpoints from the beginning: when a node is killed, and when it comes back, after the steps since the first
checkpoint were computed again by one worker."""
TOLERANCE = 1e-5
"""Of the last loss, relative: sums over other numbers of workers are rounded otherwise."""
LAUNCH = Path(__file__).resolve().parents[1] / "launch.py"
POLL_SECONDS = 0.3
MOST_SECONDS = 1200.0


@dataclass
class Demo:
    """What has been done so far."""

    console: Console
    name: str = field(default_factory=lambda: f"cluster-demo-{secrets.token_hex(2)}")
    started: float = field(default_factory=time.monotonic)
    rows: list[tuple[str, str]] = field(default_factory=list)

    @property
    def run(self) -> Path:
        return Path("runs") / self.name

    def head(self, title: str) -> None:
        self.console.print()
        self.console.rule(f"[bold]{title}[/bold]", align="left")

    def say(self, line: str) -> None:
        self.console.print(
            f"[{time.monotonic() - self.started:4.0f} s] {line}", soft_wrap=True, highlight=False, markup=False
        )

    def did(self, what: str, result: str) -> None:
        self.rows.append((what, result))

    def segue(self, *arguments: str, quiet: bool = False) -> str:
        """Run a command of Segue's; what it printed. Raises GaveUp where it fails."""
        if not quiet:
            self.say(f"$ segue {shlex.join(arguments)}")
        done = subprocess.run([sys.executable, str(LAUNCH), *arguments], capture_output=True, text=True)
        if done.returncode:
            raise GaveUp(
                f"`segue {shlex.join(arguments)}` ended with exit code {done.returncode}: {done.stderr.strip()}"
            )
        return done.stdout

    def steps(self) -> int:
        """Done so far."""
        rows = read_rows(self.run) if self.run.exists() else []
        return rows[-1]["step"] if rows else 0

    def events(self, kind: str) -> list[dict[str, Any]]:
        found = read_events(self.run) if (self.run / "events.jsonl").exists() else []
        return [event for event in found if event["event"] == kind]


def demo(console: Console, overrides: tuple[str, ...] = ()) -> None:
    """The whole of it; raises SegueError where the two runs differ. Its nodes are stopped whatever happens."""
    from pretrain.experiment import load_experiment

    overrides = (*CHANGES, *overrides)
    shown, experiment = Demo(console), load_experiment(RECIPE, overrides)
    _prepare(shown, overrides)
    try:
        address = _start_nodes(shown)
        job = _submit(shown, address, overrides)
        follower = threading.Thread(target=_follow, args=(shown, address, job), daemon=True)
        follower.start()
        _wait(shown, address, job, lambda: shown.steps() >= LOSE_AFTER * experiment.checkpoint.every)
        _kill_node(shown)
        _wait(shown, address, job, lambda: any(event["workers"] == 1 for event in shown.events("resumed")))
        shown.did("went on", f"with 1 worker from {_step_text(shown.events('resumed')[-1])}")
        _wait(shown, address, job, lambda: shown.steps() >= RETURN_AFTER * experiment.checkpoint.every)
        _return_node(shown)
        _wait(shown, address, job, lambda: shown.steps() == experiment.steps)
        follower.join(60.0)
        _conclude_job(shown, address, job)
    finally:
        shown.head("The nodes are stopped")
        for name in (NODE, HEAD):
            if any(record.name == name for record in node_record.records()):
                shown.segue("cluster", "stop", name, "--force")
    same = _compare(shown, overrides)
    shown.did("in all", f"{time.monotonic() - shown.started:.0f} s")
    made = table("What was done", "what", "result")
    for row in shown.rows:
        made.add_row(*row)
    console.print()
    console.print(made)
    if not same:
        raise SegueError("the run that lost a node differs from the quiet one, which must never happen")


def _prepare(shown: Demo, overrides: tuple[str, ...]) -> None:
    shown.head("Token shards, on this machine")
    shown.segue("prepare", RECIPE, *overrides)


def _start_nodes(shown: Demo) -> str:
    """Two of one processor each; the address of the jobs server."""
    shown.head("A cluster of two nodes, on loopback, with a token")
    shown.segue("cluster", "start", "--name", HEAD, "--num-cpus", "1")
    head = _record(HEAD)
    shown.segue("cluster", "start", "--name", NODE, "--num-cpus", "1", "--join", head.address)
    assert head.dashboard is not None, "a head has one"
    shown.did("started", f"{HEAD} and {NODE}, one processor each; jobs at {head.dashboard}")
    return head.dashboard


def _record(name: str) -> node_record.NodeRecord:
    return next(record for record in node_record.records() if record.name == name)


def _submit(shown: Demo, address: str, overrides: tuple[str, ...]) -> str:
    shown.head("A job for two workers")
    arguments = (RECIPE, *overrides, "--workers", "2", "--name", shown.name, "--address", address)
    submitted = json.loads(shown.segue("submit", *arguments, "--json"))
    shown.did("submitted", f"{submitted['id']}, with {submitted['code_files']} files of code")
    return str(submitted["id"])


def _follow(shown: Demo, address: str, job: str) -> None:
    """Print the job's log as it comes."""
    shown.say(f"$ segue logs {job} --follow --address {address}")
    command = [sys.executable, "-u", str(LAUNCH), "logs", job, "--follow", "--address", address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            shown.say(f"  | {line.rstrip()}")


def _wait(shown: Demo, address: str, job: str, until: Callable[[], bool]) -> None:
    """Raises GaveUp where the job ends, or nothing comes of it, before that."""
    deadline, looked = time.monotonic() + MOST_SECONDS, time.monotonic()
    while not until():
        if time.monotonic() - looked > 10.0:
            looked = time.monotonic()
            state = json.loads(shown.segue("status", job, "--address", address, "--json", quiet=True))
            if state["state"] not in ("pending", "running") and not until():
                raise GaveUp(f"job {job} is {state['state']} before its time; its log: {state.get('log_tail')}")
        if time.monotonic() > deadline:
            raise GaveUp(f"job {job} got no further for {MOST_SECONDS:.0f} s")
        time.sleep(POLL_SECONDS)


def _kill_node(shown: Demo) -> None:
    record, step = _record(NODE), shown.steps()
    killed = record.processes()
    for process in killed:
        process.kill()
    shown.say(f"kill -9: all {len(killed)} processes of {NODE}, after step {step}, on purpose")
    shown.did("lost a node", f"after step {step}: {len(killed)} processes by SIGKILL")


def _return_node(shown: Demo) -> None:
    step = shown.steps()
    shown.segue("cluster", "start", "--name", NODE, "--num-cpus", "1", "--join", _record(HEAD).address)
    shown.did("added a node", f"after step {step}")


def _conclude_job(shown: Demo, address: str, job: str) -> None:
    state = json.loads(shown.segue("status", job, "--address", address, "--json", quiet=True))
    back = [event for event in shown.events("resumed") if event["workers"] == 2]
    shown.did("back to two workers", f"from {_step_text(back[-1])}" if back else "NOT: it ended before")
    shown.did("finished", f"{state['state']} at step {state['step']}, loss {state['loss']:.6f}")


def _step_text(event: dict[str, Any]) -> str:
    return f"step {event['step']} ({event['redone']} steps computed again)"


def _compare(shown: Demo, overrides: tuple[str, ...]) -> bool:
    """Whether the quiet run read the same samples in every step, and came to the same loss."""
    shown.head("The same run quietly: without the cluster, and nothing lost")
    quiet = shown.run.with_name(f"{shown.name}-quiet")
    shown.segue("train", RECIPE, *overrides, "--run", str(quiet), "--workers", "2")
    lost, whole = read_rows(shown.run), read_rows(quiet)
    samples = [row["samples"] for row in lost] == [row["samples"] for row in whole]
    difference = abs(lost[-1]["loss"] - whole[-1]["loss"]) / abs(whole[-1]["loss"])
    shown.did("samples of every step", f"{len(lost)} steps {'the same' if samples else 'DIFFERENT'}")
    shown.did("last loss", f"{lost[-1]['loss']:.8f} and {whole[-1]['loss']:.8f}: differ by {difference:.1e}, relative")
    return samples and math.isfinite(difference) and difference <= TOLERANCE
