"""Preparing text and media from the driver's side: where it is computed, and what a person sees of it."""

import os
import shutil
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from cluster.progress import duration, short
from cluster.ray_session import ray_session
from data_pipeline import prepare as pipeline
from data_pipeline.config import BadInput, Preempted, SegueError
from data_pipeline.data import DataConfig
from data_pipeline.manifest import Manifest
from data_pipeline.media.media_data import MediaData
from data_pipeline.media.media_manifest import MediaManifest
from data_pipeline.media.media_pipeline import prepare_media
from data_pipeline.mixture import texts_to_prepare
from data_pipeline.prepare.directory import WORK_FOLDER, claimed
from data_pipeline.prepare.left_out import where_told
from data_pipeline.text import TextConfig

ExecutorName = Literal["local", "ray"]

LINE_SECONDS = 10.0
"""Between two lines of one stage, where there is no terminal."""

PACE_SECONDS = 60.0
"""Of which the pace is told."""


def to_prepare(config: DataConfig) -> list[TextConfig | MediaData]:
    """What of this data is made before it can be trained on: of a mixture, its texts."""
    return [config] if isinstance(config, MediaData) else [*texts_to_prepare(config)]


def prepare_any(
    config: TextConfig | MediaData,
    *,
    executor: ExecutorName,
    workers: int | None,
    address: str | None = None,
    console: Console,
) -> None:
    """Token shards or tars of media, whichever the kind of data is of."""
    if isinstance(config, MediaData):
        prepare_tars(config, executor=executor, workers=workers, address=address, console=console)
    else:
        prepare(config, executor=executor, workers=workers, address=address, console=console)


def prepare(
    config: TextConfig, *, executor: ExecutorName, workers: int | None, address: str | None = None, console: Console
) -> Manifest:
    """Make or finish the directory of token shards; raises BadInput or Refused where it cannot be made.

    `address` is that of a Ray cluster whose nodes compute, by Ray's executor; `workers` None: as many as processors.
    """
    with _working(Path(config.directory), executor, workers, address, console) as (work, shown):
        manifest = pipeline.prepare(config, executor=work, report=shown.see)
    for name, split in manifest.splits.items():
        _say(
            console,
            f"{name}: {split.num_documents:,} documents, {split.num_tokens:,} tokens, {split.num_bytes:,} bytes",
        )
    left_out, vocabulary = _left_out(config.directory, manifest.report), config.tokenizer.told(manifest.vocab_size)
    _say(console, f"left out or altered: {left_out}; {vocabulary}; prepared in {config.directory}")
    return manifest


def prepare_tars(
    config: MediaData, *, executor: ExecutorName, workers: int | None, address: str | None = None, console: Console
) -> MediaManifest:
    """As `prepare`, for media."""
    with _working(Path(config.directory), executor, workers, address, console) as (work, shown):
        manifest = prepare_media(config, executor=work, report=shown.see)
    for name, split in manifest.splits.items():
        plural = "s" * (len(split.shards) != 1)
        _say(
            console,
            f"{name}: {split.num_items:,} items, {split.num_bytes:,} bytes in {len(split.shards):,} tar{plural}",
        )
    left_out = _left_out(config.directory, manifest.report)
    _say(console, f"left out: {left_out}; prepared in {config.directory}")
    return manifest


def _left_out(directory: str, report: dict[str, int]) -> str:
    """The counts, and where the names are."""
    counts = ", ".join(f"{count:,} {reason}" for reason, count in report.items())
    return f"{counts}{where_told(directory, report)}" if counts else "nothing"


@contextmanager
def _working(
    directory: Path, executor: ExecutorName, workers: int | None, address: str | None, console: Console
) -> Iterator[tuple[pipeline.Executor, "Stages"]]:
    """Who computes, and who shows how far it is."""
    if address is not None and executor != "ray":
        raise BadInput(f"--address {address}: the nodes of a cluster need --executor ray")
    with ExitStack() as stack:
        shown = stack.enter_context(Stages(console))
        stack.enter_context(_nothing_left_of_bad_input(directory))
        work = stack.enter_context(_executor(executor, workers, address, stack))
        stack.enter_context(_ended_by_signals())  # after Ray, which takes them, too
        yield work, shown


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGUSR1 end it as asked: what is finished is kept, and the same command goes on from there."""

    def end(number: int, frame: object) -> None:
        raise Preempted("stopped as asked; the same command goes on from what is finished")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _nothing_left_of_bad_input(directory: Path) -> Iterator[None]:
    """Remove a directory that was made for nothing: what was found or made is kept, for when a disk was full or a
    file out of reach."""
    made = not directory.exists()
    try:
        yield
    except BadInput:
        if made and directory.is_dir() and not any(_results(directory)):
            with suppress(SegueError), claimed(directory):  # another driver's is left alone
                shutil.rmtree(directory, ignore_errors=True)
        raise


def _results(directory: Path) -> Iterator[Path]:
    yield from directory.rglob("*.npy")
    yield from directory.rglob("*.tar")
    yield from (directory / WORK_FOLDER).glob("scan-*.json")


def _executor(name: ExecutorName, workers: int | None, address: str | None, stack: ExitStack) -> pipeline.Executor:
    """Without an address, Ray's tasks run in a session of ours, which listens on loopback only."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if name == "local":
        return pipeline.LocalExecutor(here if workers is None else workers)
    stack.enter_context(ray_session(here if workers is None else workers, address))
    import ray

    from data_pipeline.prepare.ray_executor import RayExecutor

    return RayExecutor(workers or int(ray.cluster_resources().get("CPU", 1)))


class Pace:
    """How fast a stage goes, by what was done of late: what was found done comes at once, and is no measure."""

    def __init__(self) -> None:
        self.seen: deque[tuple[float, pipeline.Progress]] = deque()

    def of(self, progress: pipeline.Progress, now: float) -> str:
        """How much is done per second, and the time that is left; nothing before there is a second to go by.

        >>> pace = Pace()
        >>> pace.of(pipeline.Progress("encode", 1, 4, 10, 1_000_000, 1, 4), 0.0)
        ''
        >>> pace.of(pipeline.Progress("encode", 2, 4, 20, 9_000_000, 2, 4), 4.0)
        '2.5 documents/s, 2 MB/s, 0:00:08 left'
        """
        self.seen.append((now, progress))
        while len(self.seen) > 2 and self.seen[0][0] < now - PACE_SECONDS:
            self.seen.popleft()
        began, first = self.seen[0]
        seconds = now - began
        if seconds < 1:
            return ""
        count, num_bytes = progress.count - first.count, progress.num_bytes - first.num_bytes
        told = f"{short(count / seconds)} {progress.counted}/s, {num_bytes / seconds / 1e6:.3g} MB/s"
        size = progress.size_done - first.size_done
        left = (progress.size - progress.size_done) * seconds / size if size else 0.0
        return f"{told}, {duration(left)} left" if left else told


class Stages:
    """A bar for each stage on a terminal, a line now and then elsewhere."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.tasks: dict[str, TaskID] = {}
        self.paces: dict[str, Pace] = {}
        self.said_at = 0.0
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> "Stages":
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def see(self, progress: pipeline.Progress) -> None:
        if progress.stage == "finished":
            return
        now = time.monotonic()
        if progress.stage not in self.tasks:
            self.tasks[progress.stage] = self.bars.add_task(progress.stage, total=progress.total, numbers="")
            self.paces[progress.stage] = Pace()
        numbers = self._numbers(progress, now)
        self.bars.update(self.tasks[progress.stage], completed=progress.done, numbers=numbers)
        if not self.console.is_terminal and (progress.done == progress.total or now - self.said_at > LINE_SECONDS):
            self.said_at = now
            _say(self.console, f"{progress.stage} {progress.done}/{progress.total}  {numbers}".rstrip())

    def _numbers(self, progress: pipeline.Progress, now: float) -> str:
        if not progress.count:
            return ""
        pace = self.paces[progress.stage].of(progress, now)
        return f"{progress.count:,} {progress.counted}, {progress.num_bytes:,} bytes" + (f", {pace}" if pace else "")


def _say(console: Console, line: str) -> None:
    console.print(line, soft_wrap=True, highlight=False, markup=False)
