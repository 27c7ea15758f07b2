"""Where the work is done: in this process, in processes of this machine, or in Ray tasks (`ray_executor.py`).

What is prepared does not depend on the executor: it maps a function over items, and gives the results in their order.
"""

from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from data_pipeline.config import BadInput
from data_pipeline.prepare.worker_pool import WorkerPool

Item = TypeVar("Item")
Result = TypeVar("Result")


class Executor(Protocol):
    """A context manager; its workers end with it."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """function(item) for each item, in order; the first exception that a call raises is raised here.

        A lost worker's item is tried again, a few times; then SegueError.
        """


class LocalExecutor:
    """Processes of this machine; with one worker, this process."""

    def __init__(self, workers: int) -> None:
        """BadInput unless workers >= 1."""
        self.workers = checked(workers)
        self._pool: WorkerPool | None = None

    def __enter__(self) -> Self:
        if self.workers > 1:
            self._pool = WorkerPool(self.workers)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
        return map(function, items) if self._pool is None else self._pool.map(function, items)


def checked(workers: int) -> int:
    """The number of workers; BadInput if it is none."""
    if workers < 1:
        raise BadInput(f"workers {workers}: must be at least 1")
    return workers
