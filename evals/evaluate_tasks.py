"""Tasks under a target, by one process or several, each record kept as it is made."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import Any, Protocol

from data_pipeline.config import BadInput, GaveUp, SegueError
from evals.metric import Metric
from evals.results_file import ResultsFile
from evals.scoring.encoding import CannotBeAsked
from evals.scoring.item import Group, ItemScore, TokenModel
from evals.targets import Target, one_thread
from evals.tasks import TASKS
from evals.tasks.data import DataSource, Missing
from evals.tasks.task import Task
from evals.zero_shot import NotNumbers, Reader, Work, plain_protocol, plan, records

NO_DATA, NOT_ASKED, NO_NUMBER = "no data", "not asked", "no number"
AHEAD = 2
"""Batches that wait for each worker."""


@dataclass(frozen=True)
class TaskResult:
    """A task's numbers, or why there are none."""

    task: str
    title: str
    metrics: tuple[Metric, ...] = ()
    missing: str | None = None
    """`no data: ...`, `not asked: ...` or `no number: ...`, with the reason."""


class Progress(Protocol):
    """Told of every example that is done."""

    def __call__(self, task: str, done: int, total: int) -> None: ...


def silent(task: str, done: int, total: int) -> None:
    """No progress."""


def evaluate_tasks(
    target: Target,
    tasks: Sequence[str],
    source: DataSource,
    results: ResultsFile,
    *,
    rows: int = 16,
    limit: int | None = None,
    workers: int = 1,
    progress: Progress = silent,
) -> Iterator[TaskResult]:
    """The result of each task in turn. What `results` holds already is not computed again.

    `rows` contexts are computed side by side. Raises BadInput where target, task, data or an argument cannot be used.
    """
    for name, value in (("rows", rows), ("workers", workers), ("limit", limit)):
        if value is not None and value < 1:
            raise BadInput(f"{name} {value}: must be at least 1")
    chosen = [find_task(name) for name in tasks]
    with ExitStack() as stack:
        held = stack.enter_context(target.held())
        model, reader = held.open()
        identity, score = model.identity(), _alone(model)
        if workers > 1:
            score = stack.enter_context(_Workers(held, workers)).score
            del model  # it has told who it is; the workers have their own
        asked = [_Asked.of(task, reader, identity, source, rows, limit) for task in chosen]
        for one in asked:
            if one.work is not None:
                results.check(one.task.name, one.protocol, [example.name for example in one.work.examples])
        for one in asked:
            yield one.missing or _evaluate(one, results, score, progress)


@dataclass(frozen=True)
class _Asked:
    """A task ready to score, or why it cannot be."""

    task: Task
    work: Work | None = None
    protocol: dict[str, Any] = field(default_factory=dict)
    missing: TaskResult | None = None

    @classmethod
    def of(
        cls, task: Task, reader: Reader, identity: dict[str, Any], source: DataSource, rows: int, limit: int | None
    ) -> "_Asked":
        """BadInput where its data are not as they must be: found before anything is scored."""
        try:
            data = task.load(source)
            work = plan(task, data, reader, rows=rows, limit=limit)
        except Missing as missing:
            return cls(task, missing=TaskResult(task.name, task.title, missing=f"{NO_DATA}: {missing}"))
        except CannotBeAsked as why:
            return cls(task, missing=TaskResult(task.name, task.title, missing=f"{NOT_ASKED}: {task.name}: {why}"))
        return cls(task, work, plain_protocol(task, data, work, reader, identity) | {"rows": rows, "limit": limit})


def find_task(name: str, asked_by: str = "--tasks", sets: Iterable[str] = ()) -> Task:
    """BadInput, with the nearest name, where there is none; `sets` are names that could have been meant too."""
    if name not in TASKS:
        from difflib import get_close_matches

        near = get_close_matches(name.lower(), [*TASKS, *sets], n=1, cutoff=0.0)
        raise BadInput(f"{asked_by} {name}: there is no such task; did you mean {near[0]}? `evaluate --list` names all")
    return TASKS[name]


Score = Callable[[Work, Sequence[int]], Iterator[list[tuple[int, ItemScore]]]]
"""The scores of batches, in the order of their numbers."""


def _evaluate(asked: _Asked, results: ResultsFile, score: Score, progress: Progress) -> TaskResult:
    task, work, protocol = asked.task, asked.work, asked.protocol
    assert work is not None
    kept = results.begin(task.name, protocol)
    done = frozenset(record["example"] for record in kept)
    progress(task.name, len(done), len(work.examples))
    try:
        for record in records(task, work, lambda numbers: score(work, numbers), done):
            results.add(task.name, record)
            progress(task.name, len(kept), len(work.examples))
    except NotNumbers as why:
        return TaskResult(task.name, task.title, missing=f"{NO_NUMBER}: {why}")
    try:
        found = task.values(sorted(kept, key=lambda record: record["example"]))
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        if not done:
            raise  # all records are our own
        raise results.not_whole(task.name, error) from error
    metrics = [replace(one, name=f"{task.name}/{one.name}", protocol=protocol | one.protocol) for one in found]
    return TaskResult(task.name, task.title, tuple(metrics))


def of_batch(work: Work, number: int, scores: list[list[ItemScore]]) -> list[tuple[int, ItemScore]]:
    """Item and score."""
    return [
        (item, score)
        for place, found in zip(work.batches[number], scores, strict=True)
        for item, score in zip(work.places[place], found, strict=True)
    ]


def _alone(model: TokenModel) -> Score:
    def score(work: Work, numbers: Sequence[int]) -> Iterator[list[tuple[int, ItemScore]]]:
        for number in numbers:
            yield of_batch(work, number, model.score([work.groups[place] for place in work.batches[number]]))

    return score


class _Workers:
    """Processes that have each opened the target."""

    def __init__(self, target: Target, count: int) -> None:
        self.count = count
        context = get_context("spawn")
        self.pool = ProcessPoolExecutor(
            count, mp_context=context, initializer=_begin, initargs=(target, context.Value("i", 0))
        )

    def __enter__(self) -> "_Workers":
        return self

    def __exit__(self, *_: Any) -> None:
        self.pool.shutdown(cancel_futures=True)

    def score(self, work: Work, numbers: Sequence[int]) -> Iterator[list[tuple[int, ItemScore]]]:
        """GaveUp where one of them dies."""
        running: deque[tuple[int, Future[list[list[ItemScore]]]]] = deque()
        left = iter(numbers)
        while True:
            try:
                while len(running) < AHEAD * self.count and (number := next(left, None)) is not None:
                    groups = [work.groups[place] for place in work.batches[number]]
                    running.append((number, self.pool.submit(_score_groups, groups)))
                if not running:
                    return
                number, future = running.popleft()
                found = future.result()
            except BrokenProcessPool as error:
                raise GaveUp(
                    "a worker of the evaluation died, perhaps for want of memory; what --out has stays: give the same "
                    "command again, with fewer --workers or --rows"
                ) from error
            yield of_batch(work, number, found)


_model: TokenModel | None = None
_failure: SegueError | None = None


def _end_with_parent() -> None:
    """This process ends as soon as the one that started it does: killed, that one could tell nobody."""
    parent = parent_process()
    assert parent is not None, "a worker was started by somebody"

    def wait() -> None:
        parent.join()
        os._exit(1)

    Thread(target=wait, name="ends with its parent", daemon=True).start()


def _begin(target: Target, opened: Any) -> None:
    _end_with_parent()
    _open_target(target, opened)


def _open_target(target: Target, opened: Any) -> None:
    global _model, _failure
    one_thread()
    with opened.get_lock():
        number = opened.value
        opened.value += 1
    try:
        _model, _ = replace(target, worker=number).open()
    except SegueError as error:
        _failure = error  # raised here it would be lost, and the worker seem to have died


def _score_groups(groups: list[Group]) -> list[list[ItemScore]]:
    if _failure is not None:
        raise _failure
    assert _model is not None
    return _model.score(groups)
