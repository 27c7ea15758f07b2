"""Preparing with Ray tasks, on the cluster that this process is connected to.

The directory of the shards and the corpus must be at the same paths on every machine.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import ray
from ray.exceptions import RayError, RayTaskError

from data_pipeline.config import BadInput, SegueError
from data_pipeline.prepare.executor import checked
from data_pipeline.prepare.worker_pool import AHEAD, RETRIES

IN_FLIGHT = 2
"""Tasks per worker that are submitted at a time: one runs, one waits."""

END_SECONDS = 10.0
"""In which tasks that are no longer wanted are to end."""


class RayExecutor:
    """Plain Ray tasks, a bounded number at a time. It starts no Ray: a session does, which binds it to loopback."""

    def __init__(self, workers: int) -> None:
        """At most `workers` tasks at a time, of one processor each; BadInput unless workers >= 1.

        Ray tries a task whose worker or node was lost again.
        """
        self.workers = checked(workers)

    def __enter__(self) -> Self:
        """BadInput if this process is connected to no Ray."""
        if not ray.is_initialized():
            raise BadInput(
                "executor ray: this process is connected to no Ray; start one first (`launch.py prepare` does), or use "
                "the executor local"
            )
        return self

    def __exit__(self, *exception: object) -> None:
        """Nothing: the tasks of a `map` end with it."""

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
        call = ray.remote(num_cpus=1, max_retries=RETRIES)(_in_directory)
        waiting, results = deque(range(len(items))), dict[int, Any]()
        running: dict[Any, int] = {}
        given = 0
        try:
            while given < len(items):
                while waiting and len(running) < IN_FLIGHT * self.workers and waiting[0] < given + AHEAD * self.workers:
                    place = waiting.popleft()
                    running[call.remote(Path.cwd(), function, items[place])] = place
                ray.wait(list(running))
                ready, _ = ray.wait(list(running), num_returns=len(running), timeout=0)
                results |= {
                    running.pop(reference): value for reference, value in zip(ready, ray.get(ready), strict=True)
                }
                while given in results:
                    yield results.pop(given)
                    given += 1
        except RayTaskError as error:
            if isinstance(error.cause, SegueError):
                raise error.cause from error
            raise
        except RayError as error:
            raise SegueError(
                f"Ray lost a task {1 + RETRIES} times ({error}); run the same command again to go on"
            ) from error
        finally:
            for reference in running:
                ray.cancel(reference)
            with suppress(RayError):
                if running:
                    ray.wait(list(running), num_returns=len(running), timeout=END_SECONDS)


def _in_directory(directory: Path, function: Callable[[Any], Any], item: Any) -> Any:
    """On a node: relative paths begin where they do for the driver."""
    try:
        os.chdir(directory)
    except OSError as error:
        raise BadInput(
            f"node {ray.util.get_node_ip_address()} does not see {directory}: preparing on several nodes needs a "
            "directory that all of them share"
        ) from error
    return function(item)
