"""The main job, end to end, on text that every machine has: a tour that shows what it does and checks what it claims.

Prepares the Python standard library's own source (or the text given), trains a small Transformer-XL on two workers,
kills one of them half-way with SIGKILL and carries on, trains once more undisturbed and compares the two runs bit for
bit, scores held-out text with and without memory, writes a sample, and draws the loss.
"""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import psutil
from rich.console import Console
from rich.table import Table

from cluster.observer import WorkerStatus
from cluster.picture import draw_loss, sparkline
from cluster.prepare import prepare
from cluster.ray_session import ray_session
from cluster.sampling import sample_text
from cluster.train import train
from data_pipeline.config import BadInput, SegueError
from data_pipeline.text import TextConfig
from evals.evaluate import evaluate_run
from pretrain import checkpoint, config
from pretrain.experiment import Experiment
from pretrain.metrics_log import read_rows
from pretrain.rng import seed_at

WORKERS = 2
SAMPLE_TOKENS = 160


@dataclass
class Tour:
    """What the quickstart has done so far, for its last table."""

    console: Console
    started: float = field(default_factory=time.monotonic)
    rows: list[tuple[str, str, str]] = field(default_factory=list)

    def head(self, title: str) -> None:
        self.console.print()
        self.console.rule(f"[bold]{title}[/bold]", align="left")

    def did(self, what: str, result: str, where: str = "") -> None:
        self.rows.append((what, result, where))

    @contextmanager
    def timed(self) -> Iterator[Callable[[], str]]:
        start = time.monotonic()
        yield lambda: f"{time.monotonic() - start:.0f} s"

    def conclude(self) -> None:
        table = Table(title="What was done, and where it lies", title_justify="left", show_lines=False)
        for name in ("step", "result", "where"):
            table.add_column(name, overflow="fold")
        for row in self.rows:
            table.add_row(*row)
        self.console.print()
        self.console.print(table)


def quickstart(*, corpus: Path | None = None, run: Path | None = None, console: Console | None = None) -> None:
    """The tour; raises BadInput for a corpus or run directory that cannot be used.

    Where nothing is said, the run goes to runs/quickstart, or the first of runs/quickstart-2, ... that is free.
    """
    tour = Tour(console or Console())
    experiment, directory = _choose(corpus, run)
    with PeakMemory() as memory, ray_session(WORKERS):
        _prepare(tour, experiment)
        experiment = _fitted(experiment)
        _train_and_lose_a_worker(tour, experiment, directory)
        same = _train_undisturbed(tour, experiment, directory)
    _evaluate(tour, experiment, directory)
    _sample(tour, directory)
    _draw(tour, directory)
    tour.did("in all", f"{time.monotonic() - tour.started:.0f} s, at most {memory.peak / 2**30:.1f} GiB of memory")
    tour.conclude()
    tour.console.print(
        f"\nGo on:  segue sample {directory} --prompt 'class '\n        segue checkpoints list {directory}"
        f"\n        tensorboard --logdir {directory / 'tensorboard'}",
        highlight=False,
        soft_wrap=True,
    )
    if not same:
        raise SegueError("the run that lost a worker differs from the undisturbed one, which must never happen")


def _choose(corpus: Path | None, run: Path | None) -> tuple[Experiment, Path]:
    """The recipe, on the corpus given, and a free run directory."""
    overrides: tuple[str, ...] = ()
    if corpus is not None:
        if not corpus.exists():
            raise BadInput(f"--corpus {corpus}: there is no such file or directory")
        directory, pattern = (corpus, "**/*") if corpus.is_dir() else (corpus.parent, corpus.name)
        unit = "file" if corpus.is_dir() and _num_files(corpus) >= 50 else "blank_line"
        files = {"kind": "files", "directory": str(directory.resolve()), "train": [pattern], "document": unit}
        place = f"data/quickstart-{corpus.resolve().stem}-{seed_at(0, str(corpus.resolve())) % 16**6:06x}"
        overrides = (f"data.corpus={json.dumps(files)}", f"data.directory={json.dumps(place)}")
    experiment = config.load(Experiment, config.recipe_path("quickstart"), overrides)
    if run is not None:
        return experiment, run
    tried = (Path("runs") / ("quickstart" + (f"-{number}" if number > 1 else "")) for number in range(1, 10_000))
    return experiment, next(path for path in tried if not path.exists() and not _undisturbed(path).exists())


def _num_files(directory: Path) -> int:
    return sum(1 for path in directory.rglob("*") if path.is_file())


def _undisturbed(directory: Path) -> Path:
    return directory.with_name(f"{directory.name}-undisturbed")


def _prepare(tour: Tour, experiment: Experiment) -> None:
    assert isinstance(experiment.data, TextConfig)
    tour.head("1  Prepare: documents, tokenizer, token shards (Ray)")
    with tour.timed() as seconds:
        manifest = prepare(experiment.data, executor="ray", workers=WORKERS, console=tour.console)
        splits = manifest.splits
        counts = ", ".join(
            f"{name} {split.num_tokens:,} tokens ({split.num_documents:,} documents)" for name, split in splits.items()
        )
        tour.did(
            "prepared",
            f"{counts}; vocabulary {manifest.vocab_size:,}; {seconds()}",
            experiment.data.directory,
        )


def _fitted(experiment: Experiment) -> Experiment:
    """The vocabulary that the tokenizer found in the text; a small text has fewer pairs than were asked for."""
    model = experiment.model.model_copy(update={"vocab_size": experiment.data.vocab_size()})
    return experiment.model_copy(update={"model": model})


def _train_and_lose_a_worker(tour: Tour, experiment: Experiment, directory: Path) -> None:
    tour.head(f"2  Train on {WORKERS} workers, and lose one")
    fall = Fall(rank=WORKERS - 1, after_step=experiment.checkpoint.every * 3 // 2, console=tour.console)
    with tour.timed() as seconds:
        train(experiment, directory, workers=WORKERS, launcher="ray", on_status=fall, console=tour.console)
        rows = read_rows(directory)
        tour.did(
            "trained",
            f"{len(rows)} steps, loss {rows[0]['loss']:.3f} -> {rows[-1]['loss']:.3f} nats/token; {seconds()}",
        )
    tour.did("lost a worker", fall.story(), str(directory / "events.jsonl"))


@dataclass
class Fall:
    """Kills one worker with SIGKILL, once, as soon as it has done so many steps."""

    rank: int
    after_step: int
    console: Console
    done_at: int | None = None
    pid: int = 0

    def __call__(self, statuses: list[WorkerStatus]) -> None:
        for status in statuses:
            if self.done_at is None and status.rank == self.rank and status.step >= self.after_step:
                self.done_at, self.pid = status.step, status.pid
                os.kill(status.pid, signal.SIGKILL)
                self.console.print(
                    f"[bold red]kill -9[/bold red] worker {self.rank} (process {self.pid}) "
                    f"after step {self.done_at}, on purpose",
                    highlight=False,
                )

    def story(self) -> str:
        if self.done_at is None:
            return "the run was over before it could be killed"
        return (
            f"worker {self.rank} (process {self.pid}) by SIGKILL after step {self.done_at}; "
            "carried on from the last checkpoint"
        )


def _train_undisturbed(tour: Tour, experiment: Experiment, directory: Path) -> bool:
    tour.head("3  The same run undisturbed, and the two compared bit for bit")
    other = _undisturbed(directory)
    with tour.timed() as seconds:
        train(experiment, other, workers=WORKERS, launcher="ray", console=tour.console)
        comparison = checkpoint.compare(*(checkpoint.CheckpointReader(_last(run)) for run in (directory, other)))
        verdict = "equal in every bit" if comparison.equal else f"DIFFERENT: {comparison.differences[0]}"
        tour.console.print(f"last checkpoints: {verdict}", style="bold green" if comparison.equal else "bold red")
        tour.did("compared", f"weights, optimizer and memory {verdict}; {seconds()}", str(other))
        return comparison.equal


def _last(run: Path) -> Path:
    found = checkpoint.latest(run)
    assert found is not None, "a finished run has a checkpoint"
    return found


def _evaluate(tour: Tour, experiment: Experiment, directory: Path) -> None:
    tour.head("4  Score held-out text, with memory and with memory off")
    with tour.timed() as seconds:
        result = evaluate_run(directory, split="valid", max_tokens=experiment.evaluate.max_tokens)
        for line in result.lines():
            tour.console.print(line, highlight=False)
        with_memory, without = result.with_memory, result.without_memory
        tour.did(
            "held out",
            f"{with_memory.bits_per_byte:.4f} bits/byte with memory, "
            f"{without.bits_per_byte:.4f} with memory off; {seconds()}",
        )


def _sample(tour: Tour, directory: Path) -> None:
    tour.head("5  Sample")
    text = sample_text(directory, prompt="def ", num_tokens=SAMPLE_TOKENS, temperature=0.8, top_p=0.95, seed=0)
    path = directory / "sample.txt"
    path.write_text(text, encoding="utf-8")
    tour.console.print(text, markup=False, highlight=False)
    tour.did("sampled", f"{SAMPLE_TOKENS} tokens", str(path))


def _draw(tour: Tour, directory: Path) -> None:
    tour.head("6  The loss")
    rows = read_rows(directory)
    tour.console.print(sparkline([row["loss"] for row in rows], width=72), highlight=False)
    tour.did("drew the loss", f"{len(rows)} steps", str(draw_loss(directory)))


class PeakMemory:
    """The largest sum, over this process and all below it, of memory not counted twice (proportional set size)."""

    def __init__(self, seconds: float = 2.0) -> None:
        self.peak, self.seconds, self.ended = 0, seconds, threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "PeakMemory":
        self.thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.ended.set()
        self.thread.join()

    def _watch(self) -> None:
        this = psutil.Process()
        while True:
            self.peak = max(self.peak, sum(_memory(process) for process in [this, *this.children(recursive=True)]))
            if self.ended.wait(self.seconds):
                return


def _memory(process: psutil.Process) -> int:
    try:
        used = process.memory_full_info()
        return int(getattr(used, "pss", used.uss))
    except psutil.Error:
        return 0
