"""Tasks under a target, by one process or several, each record kept as it is made."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from multiprocessing import get_context
from typing import Any, Protocol

from data_pipeline.config import BadInput
from evals.metric import Metric
from evals.results_file import ResultsFile
from evals.scoring.encoding import CannotBeAsked
from evals.scoring.item import Group, ItemScore, TokenModel
from evals.targets import Target, one_thread
from evals.tasks import TASKS
from evals.tasks.data import DataSource, Missing
from evals.tasks.task import Task
from evals.zero_shot import Reader, Work, plain_protocol, plan, records

NO_DATA, NOT_ASKED = "no data", "not asked"
AHEAD = 2
"""Batches that wait for each worker."""


@dataclass(frozen=True)
class TaskResult:
    """A task's numbers, or why there are none."""

    task: str
    title: str
    metrics: tuple[Metric, ...] = ()
    missing: str | None = None
    """`no data: ...` or `not asked: ...`, with the reason."""


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
    if rows < 1 or workers < 1 or (limit is not None and limit < 1):
        raise BadInput(f"rows is {rows}, workers {workers} and limit {limit}; each must be at least 1")
    chosen = [find_task(name) for name in tasks]
    with ExitStack() as stack:
        model, reader = target.open()
        score = _alone(model) if workers == 1 else stack.enter_context(_Workers(target, workers)).score
        for task in chosen:
            yield _evaluate(task, model, reader, source, results, score, rows, limit, progress)


def find_task(name: str, asked_by: str = "--tasks") -> Task:
    """BadInput, with the nearest name, where there is none."""
    if name not in TASKS:
        from difflib import get_close_matches

        near = get_close_matches(name, TASKS, n=1, cutoff=0.0)
        raise BadInput(f"{asked_by} {name}: there is no such task; did you mean {near[0]}? `evaluate --list` names all")
    return TASKS[name]


Score = Callable[[Work, Sequence[int]], Iterator[list[tuple[int, ItemScore]]]]
"""The scores of batches, in the order of their numbers."""


def _evaluate(
    task: Task,
    model: TokenModel,
    reader: Reader,
    source: DataSource,
    results: ResultsFile,
    score: Score,
    rows: int,
    limit: int | None,
    progress: Progress,
) -> TaskResult:
    try:
        data = task.load(source)
    except Missing as missing:
        return TaskResult(task.name, task.title, missing=f"{NO_DATA}: {missing}")
    try:
        work = plan(task, data, reader, rows=rows, limit=limit)
    except CannotBeAsked as why:
        return TaskResult(task.name, task.title, missing=f"{NOT_ASKED}: {task.name}: {why}")
    protocol = plain_protocol(task, data, work, reader, model) | {"rows": rows, "limit": limit}
    kept = results.begin(task.name, protocol)
    done = frozenset(record["example"] for record in kept)
    progress(task.name, len(done), len(work.examples))
    for record in records(task, work, lambda numbers: score(work, numbers), done):
        results.add(task.name, record)
        progress(task.name, len(kept), len(work.examples))
    found = task.values(sorted(kept, key=lambda record: record["example"]))
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
        self.pool = ProcessPoolExecutor(
            count, mp_context=get_context("spawn"), initializer=_open_target, initargs=(target,)
        )

    def __enter__(self) -> "_Workers":
        return self

    def __exit__(self, *_: Any) -> None:
        self.pool.shutdown(cancel_futures=True)

    def score(self, work: Work, numbers: Sequence[int]) -> Iterator[list[tuple[int, ItemScore]]]:
        running: deque[tuple[int, Future[list[list[ItemScore]]]]] = deque()
        left = iter(numbers)
        while True:
            while len(running) < AHEAD * self.count and (number := next(left, None)) is not None:
                groups = [work.groups[place] for place in work.batches[number]]
                running.append((number, self.pool.submit(_score_groups, groups)))
            if not running:
                return
            number, future = running.popleft()
            yield of_batch(work, number, future.result())


_model: TokenModel | None = None


def _open_target(target: Target) -> None:
    global _model
    one_thread()
    _model, _ = target.open()


def _score_groups(groups: list[Group]) -> list[list[ItemScore]]:
    assert _model is not None
    return _model.score(groups)
