"""Benchmark tasks from the command line: progress while they run, the table when they are done."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from data_pipeline.config import BadInput
from evals import benchmark_table
from evals.evaluate_tasks import TaskResult, evaluate_tasks, find_task
from evals.results_file import ResultsFile
from evals.targets import Target
from evals.tasks import TASKS
from evals.tasks.data import DataSource


def task_names(asked: Sequence[str]) -> tuple[list[str], list[benchmark_table.Row]]:
    """The tasks of names and of sets of tasks, separated by commas or given apart, and the table's published lines.

    BadInput where there is no such task.
    """
    names: list[str] = []
    rows: list[benchmark_table.Row] = []
    for name in (part.strip() for one in asked for part in one.split(",")):
        chosen = benchmark_table.TASK_SETS.get(name)
        names += [find_task(name).name] if chosen is None else [row.task for row in chosen]
        published = benchmark_table.GPT2_TABLE if chosen is None else chosen
        rows += [row for row in published if chosen is not None or row.task == name]
    return list(dict.fromkeys(names)), list(dict.fromkeys(rows))


def run_tasks(
    target: Target,
    tasks: Sequence[str],
    console: Console,
    *,
    data_directory: Path | None,
    out: Path | None,
    tables: Sequence[Path],
    rows: int,
    limit: int | None,
    workers: int,
) -> list[TaskResult]:
    """Evaluate, show progress and table, write the tables asked for. BadInput where something cannot be used."""
    names, lines = task_names(tasks)
    for path in tables:
        benchmark_table.check_format(path)
    if data_directory is not None and not data_directory.is_dir():
        raise BadInput(f"--data-dir {data_directory}: there is no such directory")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    found: list[TaskResult] = []
    with Progress(*columns, console=console) as progress, closing(ResultsFile(out)) as results:
        bars: dict[str, TaskID] = {}

        def tell(task: str, done: int, total: int) -> None:
            if task not in bars:
                bars[task] = progress.add_task(task, total=total)
            progress.update(bars[task], completed=done)

        source = DataSource(data_directory)
        found += evaluate_tasks(target, names, source, results, rows=rows, limit=limit, workers=workers, progress=tell)
    title = f"zero-shot, {target.name}" + ("" if limit is None else f", the first {limit} examples of each")
    console.print(benchmark_table.table(found, lines, title))
    for line in benchmark_table.missing(found):
        console.print(line, highlight=False, soft_wrap=True)
    for path in tables:
        benchmark_table.write(path, found, lines, title)
        console.print(f"{path}: the table", highlight=False)
    return found


def task_list() -> Table:
    """All tasks, and the sets of them."""
    shown = Table("task", "version", "what it is")
    for name, task in TASKS.items():
        shown.add_row(name, str(task.version), task.title)
    for name, lines in benchmark_table.TASK_SETS.items():
        shown.add_row(name, "", ", ".join(dict.fromkeys(line.task for line in lines)))
    return shown
