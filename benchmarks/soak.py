"""A run that is killed again and again, at moments drawn at random, must end in the bits of one that is left alone.

    python -m benchmarks.soak                 # 5 minutes of kills
    python -m benchmarks.soak --minutes 20

A small Transformer-XL with memory and dropout trains on two workers under the DeepSpeed engine (ZeRO 1), through the
command line, saving every few steps. Killed by SIGKILL are a worker or the driver, at any moment, and as often in the
middle of a save, which is seen from outside by its unfinished directory. A driver that was killed, or that gave up, is
started again by the user's command, `resume`. After every death of a driver each checkpoint is read in full. At the end
the run is asked to stop, and another one is trained to the same step in one go.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import psutil

from benchmarks.table import Figure, conclude
from pretrain import checkpoint, config
from pretrain.checkpoint.layout import leftovers
from pretrain.experiment import Experiment
from pretrain.run_directory import read_events

ROOT = Path(__file__).parents[1]
EVERY = 10
"""Steps between two saves."""
SLOWEST_START = 120.0
"""Seconds that a driver may take to get its workers going."""
FEWEST_KILLS_A_MINUTE = 1.25

Victim = Literal["worker", "driver"]


def recipe(steps: int) -> Experiment:
    """Big enough that a save takes a while; its learning rate does not depend on where the run ends."""
    return config.load(
        Experiment,
        config.recipe_path("tiny_transformer_xl"),
        (
            "name=soak",
            f"steps={steps}",
            "model.num_layers=4",
            "model.width=256",
            "model.num_heads=4",
            "model.head_width=64",
            "model.inner_width=1024",
            "schedule={kind: constant, warmup_steps: 10}",
            "engine={kind: deepspeed, zero_stage: 1, device: cpu}",
            f"checkpoint={{every: {EVERY}, keep: 3}}",
            "evaluate.every=null",
        ),
    )


@dataclass
class Tally:
    """What happened."""

    kills: Counter[str] = field(default_factory=Counter)
    """By victim and moment."""
    torn: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    starts: int = 0
    gave_up: int = 0
    newest: int = -1
    """The step of the newest checkpoint that was seen complete."""


class Soak:
    """One run and the one who disturbs it."""

    def __init__(self, directory: Path, chance: random.Random) -> None:
        self.directory, self.run, self.chance, self.tally = directory, directory / "run", chance, Tally()
        self.driver: psutil.Popen | None = None
        self.starts_before = 0

    def start(self) -> None:
        """Start the driver as a user does: `train` once, then `resume`."""
        self.starts_before = self.starts_told()
        begun = (self.run / "experiment.yaml").exists()
        command = segue("resume", str(self.run)) if begun else train(self.directory, self.run, steps=10**6)
        with (self.directory / "driver.log").open("ab") as log:
            self.driver = psutil.Popen(command, cwd=self.directory, stdout=log, stderr=log, env=environment())
        self.tally.starts += 1

    def disturb(self, deadline: float) -> None:
        """Kill until the time is up, starting the driver anew whenever it is gone."""
        while time.monotonic() < deadline:
            if not self.alive():
                self.bury()
                self.start()
            self.await_progress()
            if not self.alive():
                continue
            victim: Victim = self.chance.choice(["worker", "driver"])
            saving = self.chance.random() < 0.5
            if saving:
                self.await_save()
            else:
                time.sleep(self.chance.uniform(0.0, 8.0))
            self.kill(victim, "saving" if self.is_saving() else "between saves")

    def alive(self) -> bool:
        return self.driver is not None and self.driver.poll() is None

    def bury(self) -> None:
        """Look at what a dead driver has left: every finished checkpoint must be whole, the newest one still there."""
        if self.driver is None:
            return
        self.tally.gave_up += self.driver.poll() == 6
        for info in checkpoint.list_checkpoints(self.run):
            self.tally.torn += checkpoint.verify(info.path)
        newest = checkpoint.latest(self.run)
        step = checkpoint.CheckpointReader(newest).step if newest else -1
        if step < self.tally.newest:
            self.tally.lost.append(f"step {self.tally.newest} was saved, now the newest is {step}")
        self.tally.newest = step

    def await_progress(self) -> None:
        """Wait until the workers of this driver take steps (those of a killed one may still take their last)."""
        started = time.monotonic()
        before: tuple[int, int] | None = None
        while self.alive() and (before is None or self.last_row() == before):
            if before is None and self.starts_told() > self.starts_before:
                before = self.last_row()
            if time.monotonic() - started > SLOWEST_START:
                raise RuntimeError(f"no step for {SLOWEST_START:.0f} s; see {self.directory / 'driver.log'}")
            time.sleep(0.05)

    def await_save(self) -> None:
        """Wait for the beginning of the next save, then a little into it."""
        until = time.monotonic() + 30
        while self.alive() and not self.is_saving() and time.monotonic() < until:
            time.sleep(0.0005)
        time.sleep(self.chance.choice([0.0, 0.001, 0.003, 0.01, 0.03]))

    def is_saving(self) -> bool:
        with suppress(OSError):
            return bool(leftovers(self.run))
        return False

    def kill(self, victim: Victim, moment: str) -> None:
        """SIGKILL to one worker, or to the driver."""
        process = self.driver if victim == "driver" else self.chance.choice(self.workers() or [None])
        with suppress(psutil.NoSuchProcess):
            if process is not None and process.is_running():
                process.send_signal(signal.SIGKILL)
                self.tally.kills[f"{victim}, {moment}"] += 1
                if victim == "driver":
                    process.wait()

    def workers(self) -> list[psutil.Process]:
        """The processes of this run's workers that train."""
        found = []
        with suppress(psutil.NoSuchProcess):
            for process in self.driver.children(recursive=True) if self.driver else []:
                with suppress(psutil.NoSuchProcess):
                    if process.name().startswith("ray::Worker"):
                        found.append(process)
        return found

    def starts_told(self) -> int:
        """How often workers have begun to train."""
        return sum(event["event"] in ("started", "resumed") for event in read_events(self.run))

    def last_row(self) -> tuple[int, int]:
        """(inode, size) of metrics.jsonl: changes with every step and every start."""
        with suppress(FileNotFoundError):
            found = (self.run / "metrics.jsonl").stat()
            return found.st_ino, found.st_size
        return 0, 0

    def finish(self) -> int:
        """Let the run go on to a step of its own, ask it to stop there, and return the step that it saved."""
        if not self.alive():
            self.bury()
            self.start()
        assert self.driver is not None
        self.await_progress()
        self.driver.terminate()
        code = self.driver.wait(timeout=300)
        if code != 5:
            raise RuntimeError(f"asked to stop, the driver ended with {code}; see {self.directory / 'driver.log'}")
        self.bury()
        return self.tally.newest


def segue(*arguments: str) -> list[str]:
    """The command line, on two workers."""
    return [sys.executable, str(ROOT / "launch.py"), *arguments, "--workers", "2"]


def train(directory: Path, run: Path, *, steps: int) -> list[str]:
    """The command that starts the run."""
    path = directory / f"{run.name}.yaml"
    path.write_text(config.dump(recipe(steps)), encoding="utf-8")
    return segue("train", str(path), "--run", str(run))


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def undisturbed(directory: Path, steps: int) -> Path:
    """The same run in one go, in processes of its own."""
    run = directory / "undisturbed"
    with (directory / "undisturbed.log").open("wb") as log:
        subprocess.run(
            train(directory, run, steps=steps), cwd=directory, check=True, stdout=log, stderr=log, env=environment()
        )
    return run


def soak(directory: Path, minutes: float, seed: int) -> None:
    soaked = Soak(directory, random.Random(seed))
    soaked.disturb(time.monotonic() + 60 * minutes)
    steps = soaked.finish()
    tally = soaked.tally
    reference = newest(undisturbed(directory, steps))
    compared = checkpoint.compare(newest(soaked.run), reference)
    resumes = [event for event in read_events(soaked.run) if event["event"] == "resumed"]
    kills = sum(tally.kills.values())
    conclude(
        "soak",
        [
            Figure("kills that are short of 25 in 20 minutes", max(0.0, FEWEST_KILLS_A_MINUTE * minutes - kills), 0),
            Figure("kinds of kill that did not happen, of 4", 4 - len(tally.kills), 0),
            Figure("torn checkpoints", len(tally.torn), 0),
            Figure("lost checkpoints", len(tally.lost), 0),
            Figure("tensors and counters that differ", len(compared.differences), 0),
        ],
        same=compared.equal and not tally.torn and not tally.lost,
        notes=[
            f"{kills} kills survived in {minutes:g} minutes: "
            + ", ".join(f"{count} {what}" for what, count in sorted(tally.kills.items())),
            f"{tally.starts} drivers, {tally.gave_up} of them gave up; {len(resumes)} times resumed; "
            f"{steps} steps, and {sum(event['redone'] for event in resumes)} computed again",
            f"{len(compared.tensors)} tensors compared: weights, moments, memory, probe",
            *tally.torn[:3],
            *tally.lost[:3],
            *compared.differences[:3],
        ],
    )


def newest(run: Path) -> checkpoint.CheckpointReader:
    found = checkpoint.newest_good(run, log=print)
    if found is None:
        raise RuntimeError(f"{run} has no checkpoint")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--minutes", type=float, default=5.0, help="how long it is disturbed; as long again undisturbed"
    )
    parser.add_argument("--seed", type=int, default=0, help="of who is killed when")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="segue-soak-") as directory:
        soak(Path(directory), given.minutes, given.seed)


if __name__ == "__main__":
    main()
