"""Preparing with Ray tasks: on a cluster that this process is connected to, or on one of its own, bound to loopback.

The directory of the shards and the corpus must be at the same paths on every machine.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

import ray
from ray.exceptions import RayError, RayTaskError

from data_pipeline.config import SegueError
from data_pipeline.prepare.executor import IN_FLIGHT, checked

LOOPBACK = "127.0.0.1"
STORE_BYTES = 128 << 20
"""Shared memory of a Ray of our own: tasks exchange little, since they read and write files."""


class RayExecutor:
    """Plain Ray tasks, a bounded number at a time."""

    def __init__(self, workers: int) -> None:
        """At most `workers` tasks at a time, of one processor each; BadInput unless workers >= 1."""
        self.workers = checked(workers)
        self._owned = False

    def __enter__(self) -> Self:
        if not ray.is_initialized():
            ray.init(
                address="local",
                num_cpus=self.workers,
                object_store_memory=STORE_BYTES,
                dashboard_host=LOOPBACK,
                _node_ip_address=LOOPBACK,
                log_to_driver=False,
            )
            self._owned = True
        return self

    def __exit__(self, *exception: object) -> None:
        if self._owned:
            ray.shutdown()
            self._owned = False

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
        task = ray.remote(num_cpus=1)(function)
        running: deque[Any] = deque()
        try:
            for item in items:
                if len(running) == IN_FLIGHT * self.workers:
                    yield ray.get(running.popleft())
                running.append(task.remote(item))
            while running:
                yield ray.get(running.popleft())
        except RayTaskError as error:
            if isinstance(error.cause, SegueError):
                raise error.cause from error
            raise
        except RayError as error:
            raise SegueError(f"Ray lost a task ({error}); run the same command again to go on") from error
        finally:
            for reference in running:
                ray.cancel(reference)
