"""A run that is killed again and again, at moments drawn at random, must end in the bits of one that is left alone.

    python -m benchmarks.soak                 # 5 minutes of kills
    python -m benchmarks.soak --minutes 20

A small Transformer-XL with memory and dropout trains on two workers under the DeepSpeed engine (ZeRO 1), through the
command line, saving every few steps. Killed by SIGKILL are a worker or the driver: before the first step after a start
or a loss, between two saves, or in the middle of a save, which is seen from outside by its unfinished directory. A
driver that was killed is started again by the user's command, `resume`. After every death of a driver each checkpoint
is read in full, after a worker's the newest one. At the end the run is asked to stop, and another one is trained to the
same step in one go.
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
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import psutil

from benchmarks.table import Figure, conclude
from data_pipeline.config import Preempted
from pretrain import checkpoint, config
from pretrain.checkpoint.layout import leftovers
from pretrain.experiment import Experiment
from pretrain.metrics_log import read_rows
from pretrain.run_directory import read_events

ROOT = Path(__file__).parents[1]
EVERY = 10
"""Steps between two saves."""
SLOWEST_START = 120.0
"""Seconds that a driver may take to get its workers going."""
LONGEST_STARTING = 10.0
"""Of a driver, or of its workers: they are killed sooner where they are to be killed before their first step."""
STARTING_IN_A_ROW = 2
"""Kills before the first step; then the run may take one, or it would never get on."""
FEWEST_KILLS_A_MINUTE = 1.25

Victim = Literal["worker", "driver"]
Moment = Literal["starting", "between saves", "saving"]


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
            "supervision.max_failures=1000",  # a kill before the first step lets no checkpoint further on
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
    ended: Counter[int] = field(default_factory=Counter)
    """Drivers that ended unasked, by exit code."""
    newest: int = -1
    """The step of the newest checkpoint that was seen complete."""


class Soak:
    """One run and the one who disturbs it."""

    def __init__(self, directory: Path, chance: random.Random) -> None:
        self.directory, self.run, self.chance, self.tally = directory, directory / "run", chance, Tally()
        self.driver: psutil.Popen | None = None
        self.starting_in_a_row = 0
        self.doomed: set[int] = set()
        """Processes of workers that end, because one of them was killed."""
        self.forget()

    def forget(self) -> None:
        """From here on look for a new start of the workers, and for new saves."""
        self.starts_before = self.starts_told()
        self.before_first_step: tuple[int, int] | None = None
        self.stepped = False
        self.old_saves = set(leftovers(self.run))

    def start(self) -> None:
        """Start the driver as a user does: `train` once, then `resume`."""
        self.forget()
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
            victim: Victim = self.chance.choice(["worker", "driver"])
            self.await_moment(self.draw_moment(), victim)
            self.kill(victim)

    def draw_moment(self) -> Moment:
        moments: list[Moment] = ["between saves", "saving"]
        if self.starting_in_a_row < STARTING_IN_A_ROW:
            moments.append("starting")
        return self.chance.choice(moments)

    def await_moment(self, moment: Moment, victim: Victim) -> None:
        """Wait for it; what moment it really is then is seen by `moment`."""
        if moment == "starting":
            self.await_starting(victim)
            return
        self.await_progress()
        self.look_at_newest()
        if moment == "saving":
            self.await_save()
        else:
            time.sleep(self.chance.uniform(0.0, 8.0))

    def alive(self) -> bool:
        return self.driver is not None and self.driver.poll() is None

    def bury(self) -> None:
        """Look at what a dead driver has left: every finished checkpoint must be whole, the newest one still there."""
        if self.driver is None:
            return
        code = self.driver.poll()
        if code not in (-signal.SIGKILL, Preempted.exit_code):
            self.tally.ended[code] += 1
        for info in checkpoint.list_checkpoints(self.run):
            self.tally.torn += checkpoint.verify(info.path)
        self.see_newest(checkpoint.latest(self.run))

    def look_at_newest(self) -> None:
        """While the run goes on: its newest checkpoint must be whole, and none older than was seen before."""
        newest = checkpoint.latest(self.run)
        if newest is not None:
            with checkpoint.held(newest):
                self.tally.torn += checkpoint.verify(newest)
        self.see_newest(newest)

    def see_newest(self, newest: Path | None) -> None:
        step = checkpoint.CheckpointReader(newest).step if newest else -1
        if step < self.tally.newest:
            self.tally.lost.append(f"step {self.tally.newest} was saved, now the newest is {step}")
        self.tally.newest = step

    def await_starting(self, victim: Victim) -> None:
        """Wait a random while after a start or a loss, but not beyond the first step."""
        if victim == "worker" or self.chance.random() < 0.5:
            self.await_true(lambda: bool(self.workers()))
        until = time.monotonic() + self.chance.uniform(0.0, LONGEST_STARTING)
        self.await_true(lambda: self.has_stepped() or time.monotonic() >= until)

    def await_progress(self) -> None:
        """Wait until the workers have taken a step since the last start or kill."""
        self.await_true(self.has_stepped)

    def await_true(self, is_true: Callable[[], bool]) -> None:
        """Wait for it, or for the driver's death; raises RuntimeError where neither comes."""
        started = time.monotonic()
        while self.alive() and not is_true():
            if time.monotonic() - started > SLOWEST_START:
                raise RuntimeError(f"nothing for {SLOWEST_START:.0f} s; see {self.directory / 'driver.log'}")
            time.sleep(0.05)

    def has_stepped(self) -> bool:
        """Whether the workers have taken a step since the last start or kill; no mere last step of killed ones.

        Workers that end may yet tell of a start and write a row; those that come after them cut it off as they start.
        """
        if self.before_first_step is None:
            if self.workers() and self.starts_told() > self.starts_before:
                self.before_first_step, self.old_saves = self.last_row(), set(leftovers(self.run))
        elif not self.stepped and self.last_row() != self.before_first_step:
            told = [e for e in read_events(self.run) if e["event"] in ("started", "resumed", "lost")]
            rows = read_rows(self.run)
            self.stepped = told[-1]["event"] != "lost" and bool(rows) and rows[-1]["step"] > told[-1]["step"]
        return self.stepped

    def await_save(self) -> None:
        """Wait for the beginning of the next save, then a little into it."""
        until = time.monotonic() + 30
        while self.alive() and not self.is_saving() and time.monotonic() < until:
            time.sleep(0.0005)
        time.sleep(self.chance.choice([0.0, 0.001, 0.003, 0.01, 0.03]))

    def is_saving(self) -> bool:
        """Whether there is an unfinished save other than those that were killed before."""
        return not self.old_saves.issuperset(leftovers(self.run))

    def moment(self) -> Moment:
        """What the run does now."""
        if not self.has_stepped():
            return "starting"
        return "saving" if self.is_saving() else "between saves"

    def kill(self, victim: Victim) -> None:
        """SIGKILL to one worker, or to the driver."""
        workers = self.workers()
        process = self.driver if victim == "driver" else self.chance.choice(workers or [None])
        moment = self.moment()
        with suppress(psutil.NoSuchProcess):
            if process is None or not process.is_running():
                return
            process.send_signal(signal.SIGKILL)
            self.tally.kills[f"{victim}, {moment}"] += 1
            self.starting_in_a_row = self.starting_in_a_row + 1 if moment == "starting" else 0
            self.doomed |= {worker.pid for worker in workers}
            if victim == "driver":
                process.wait()
            self.forget()

    def workers(self) -> list[psutil.Process]:
        """The processes of this run's workers that train, or are about to."""
        found = []
        with suppress(psutil.NoSuchProcess):
            for process in self.driver.children(recursive=True) if self.driver else []:
                with suppress(psutil.NoSuchProcess):
                    if process.name().startswith("ray::Worker") and process.pid not in self.doomed:
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
            Figure("kinds of kill that did not happen, of 6", 6 - len(tally.kills), 0),
            Figure("drivers that ended unasked", tally.ended.total(), 0),
            Figure("torn checkpoints", len(tally.torn), 0),
            Figure("lost checkpoints", len(tally.lost), 0),
            Figure("tensors and counters that differ", len(compared.differences), 0),
        ],
        same=compared.equal and not tally.torn and not tally.lost,
        notes=[
            f"{kills} kills survived in {minutes:g} minutes: "
            + ", ".join(f"{count} {what}" for what, count in sorted(tally.kills.items())),
            f"{tally.starts} drivers, ended unasked by exit code: {dict(tally.ended) or 'none'}; "
            f"{len(resumes)} times resumed; "
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
