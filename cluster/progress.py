"""What a person sees of a run: a bar on a terminal, plain lines elsewhere; both come from the run's metrics.jsonl."""

import time
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from cluster.observer import WorkerStatus
from pretrain.experiment import Experiment
from pretrain.metrics_log import parse_rows


class Rows:
    """The rows of a metrics.jsonl as they come, also when the file is cut off, and perhaps longer again by the next
    look."""

    def __init__(self, path: Path) -> None:
        self.path, self.offset = path, 0
        self.last = b""
        """The last line that was read: it ends at `offset` for as long as the file only grows."""

    def new(self) -> list[dict[str, Any]]:
        """The rows since the last call; all of them where the file was cut off. A torn line is left out."""
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset - len(self.last))
                content = file.read()
                if not content.startswith(self.last):
                    file.seek(0)
                    content, self.offset, self.last = file.read(), 0, b""
        except FileNotFoundError:
            return []
        new = content[len(self.last) : content.rfind(b"\n") + 1]
        if new:
            self.offset += len(new)
            self.last = new.splitlines(keepends=True)[-1]
        return parse_rows(new)


TOLD = {
    "changed": "{message}",
    "resumed": "resumed at step {step} on {workers} worker(s); {redone} steps are computed again",
    "fallback": "warning: {message}",
    "trouble": "warning: {message}: this turn moved nothing",
    "rolled back": "rolled back to {to}; left out are the draws {skipped}",
    "not saved": "warning: {message}",
    "warning": "warning: {message}",
    "versions": "warning: {message}",
    "straggler": "warning: worker {worker} on {node} is slow: its own work, {phase} above all, takes {factor} times "
    "the workers' median",
}
"""Events that are told in a line as they come."""


class Display:
    """Shows the steps of one start of a run. A step that is computed again after a loss is not shown again."""

    def __init__(self, experiment: Experiment, directory: Path, console: Console) -> None:
        self.steps, self.every, self.console = experiment.steps, experiment.log.every, console
        self.rows = Rows(directory / "metrics.jsonl")
        self.shown = max((row["step"] for row in self.rows.new()), default=0)
        self.events = Rows(directory / "events.jsonl")
        self.events.new()
        self.first: tuple[int, float] | None = None
        """The step that came first, and when."""
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self.task: TaskID = self.bar.add_task("starting", total=self.steps, completed=self.shown, numbers="")

    def __enter__(self) -> "Display":
        self.bar.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.update([])
        self.bar.stop()

    def say(self, line: str) -> None:
        """A line of its own, above the bar."""
        self.console.print(line, soft_wrap=True, highlight=False, markup=False)

    def update(self, statuses: list[WorkerStatus]) -> None:
        """Show what is new."""
        for event in self.events.new():
            if event["event"] in TOLD:
                self.say(TOLD[event["event"]].format(**event))
        if statuses:
            phase = statuses[0].phase
            rare = phase in ("evaluate", "save") or statuses[0].step == 0
            self.bar.update(self.task, description=phase if rare else "training")
        for row in self.rows.new():
            if row["step"] > self.shown:
                self.shown = row["step"]
                self._show(row)

    def _show(self, row: dict[str, Any]) -> None:
        numbers = self._numbers(row)
        self.bar.update(self.task, completed=row["step"], numbers=numbers)
        due = row["step"] % self.every == 0 or row["step"] == self.steps
        if due and not self.console.is_terminal:
            self.say(f"step {row['step']}/{self.steps}  {numbers}")
        if row.get("evaluation"):
            scores = "  ".join(f"{name} {figures(value)}" for name, value in row["evaluation"].items())
            self.say(f"step {row['step']}/{self.steps}  evaluated: {scores}")

    def _numbers(self, row: dict[str, Any]) -> str:
        unit = row["unit"].partition("/")[2]
        rate = row[f"{unit}s_per_second"]
        return f"loss {figures(row['loss'])} {row['unit']}  {short(rate)} {unit}s/s{self._left(row['step'])}"

    def _left(self, step: int) -> str:
        """The time to the end, by the pace since this start's first step."""
        now = time.monotonic()
        if self.first is None:
            self.first = step, now
        first_step, started = self.first
        if step == first_step or step == self.steps:
            return ""
        return f"  {duration((now - started) / (step - first_step) * (self.steps - step))} left"


def figures(value: float | None) -> str:
    """Four digits after the point; in a row of metrics, what is not finite is None.

    >>> figures(1.5), figures(None)
    ('1.5000', 'not finite')
    """
    return "not finite" if value is None else f"{value:.4f}"


def duration(seconds: float) -> str:
    """Hours, minutes and seconds.

    >>> duration(3725.2)
    '1:02:05'
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def short(number: float) -> str:
    """Three figures and a letter.

    >>> short(48_210), short(12.34)
    ('48.2k', '12.3')
    """
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:.3g}"
