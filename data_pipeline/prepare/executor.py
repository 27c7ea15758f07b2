"""Where the work is done: in this process, in processes of this machine, or in Ray tasks (`ray_executor.py`).

What is prepared does not depend on the executor: it maps a function over items, and gives the results in their order.
"""

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from data_pipeline.config import BadInput, SegueError

Item = TypeVar("Item")
Result = TypeVar("Result")

IN_FLIGHT = 2
"""Tasks per worker that are submitted at a time: one runs, one waits."""


class Executor(Protocol):
    """A context manager; its workers end with it."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """function(item) for each item, in order; the first exception that a call raises is raised here."""


class LocalExecutor:
    """Processes of this machine; with one worker, this process."""

    def __init__(self, workers: int) -> None:
        """BadInput unless workers >= 1."""
        self.workers = checked(workers)
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        if self.workers > 1:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self.workers, mp_context=context, initializer=_start_worker)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
        if self._pool is None:
            yield from map(function, items)
            return
        running: deque[Future[Any]] = deque()
        try:
            for item in items:
                if len(running) == IN_FLIGHT * self.workers:
                    yield running.popleft().result()
                running.append(self._pool.submit(function, item))
            while running:
                yield running.popleft().result()
        except BrokenProcessPool as error:
            raise SegueError(
                "a worker process was ended from outside (out of memory?); run the same command again to go on, with "
                "fewer workers or a smaller data.shard_bytes"
            ) from error


def checked(workers: int) -> int:
    """The number of workers; BadInput if it is none."""
    if workers < 1:
        raise BadInput(f"workers {workers}: must be at least 1")
    return workers


def _start_worker() -> None:
    """One thread per worker, as many workers as asked for; and none outlives the process that started it."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
