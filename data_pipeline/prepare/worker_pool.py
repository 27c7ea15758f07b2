"""Processes of this machine that work on items one at a time; one that is lost costs its item a second try."""

import multiprocessing
import os
import pickle
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any

from data_pipeline.config import SegueError

RETRIES = 3
"""Of an item whose worker was lost."""

AHEAD = 16
"""Results per worker that may wait for an earlier one, so that one long item holds up nothing but the end."""

LOST = (EOFError, OSError)
"""What a connection raises whose other end is gone."""


class _Worker:
    """A process, and the place of the item that it works on."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()
        self.place: int | None = None

    def end(self) -> None:
        self.connection.close()
        self.process.kill()
        self.process.join()


class WorkerPool:
    """Starts with as many processes as it is to have, and keeps to that number."""

    def __init__(self, workers: int) -> None:
        self._workers = [_Worker() for _ in range(workers)]

    def close(self) -> None:
        """Ends all, whatever they do: what they write is there whole or not at all."""
        for worker in self._workers:
            worker.end()
        self._workers = []

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
        """function(item) of each, in order; the first exception of a call; SegueError if an item's worker is lost over
        and over."""
        waiting, losses = deque(range(len(items))), [0] * len(items)
        results: dict[int, Any] = {}
        given = 0
        try:
            while given < len(items):
                for worker in self._workers:
                    if worker.place is None and waiting and waiting[0] < given + AHEAD * len(self._workers):
                        worker.place = waiting.popleft()
                        _send(worker, function, items[worker.place])
                for place, outcome in self._outcomes():
                    if outcome is None:
                        losses[place] += 1
                        _check_losses(losses[place])
                        waiting.appendleft(place)
                    else:
                        results[place] = _value(outcome)
                while given in results:
                    yield results.pop(given)
                    given += 1
        finally:
            self._stop_working()

    def _outcomes(self) -> Iterator[tuple[int, tuple[bool, Any] | None]]:
        """The place of each item that a worker has finished, and what came of it: None if the worker was lost."""
        busy = {worker.connection: number for number, worker in enumerate(self._workers) if worker.place is not None}
        for connection in wait(list(busy)):
            number = busy[connection]  # type: ignore[index]  # only connections were waited for
            worker = self._workers[number]
            place, worker.place = worker.place, None
            assert place is not None
            try:
                yield place, worker.connection.recv()
            except LOST:
                worker.end()
                self._workers[number] = _Worker()
                yield place, None

    def _stop_working(self) -> None:
        """No worker goes on with an item that nobody waits for."""
        for number, worker in enumerate(self._workers):
            if worker.place is not None:
                worker.end()
                self._workers[number] = _Worker()


def _send(worker: _Worker, function: Callable[[Any], Any], item: Any) -> None:
    with suppress(*LOST):  # it shows where the answer is waited for
        worker.connection.send((function, item))


def _value(outcome: tuple[bool, Any]) -> Any:
    succeeded, value = outcome
    if not succeeded:
        raise value
    return value


def _check_losses(losses: int) -> None:
    if losses > RETRIES:
        raise SegueError(
            f"a worker process was ended from outside {losses} times at the same piece (out of memory?); run the same "
            "command again to go on, with fewer workers; or prepare in another directory, in smaller data.shard_bytes"
        )


def _serve(connection: Connection) -> None:
    """In the worker: one thread, deaf to Ctrl-C (the driver ends it), and it never outlives the driver."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            function, item = connection.recv()
        except LOST:
            return
        try:
            outcome = True, function(item)
        except Exception as error:  # it is raised in the driver
            outcome = False, _that_travels(error)
        try:
            connection.send(outcome)
        except LOST:
            return
        except Exception as error:  # what cannot be pickled
            connection.send((False, SegueError(f"{type(error).__name__}: {error}, of {outcome[1]!r}")))


def _that_travels(error: Exception) -> Exception:
    """The error, or what it says: those of some libraries cannot be made again from what is pickled of them."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception as problem:
        return SegueError(f"{type(error).__name__}: {error} ({problem})")
    return error


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
