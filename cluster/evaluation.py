"""Benchmark tasks from the command line: progress while they run, the table when they are done."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from cluster.terminal import refuse_options
from data_pipeline.config import BadInput
from evals import benchmark_table, table_files
from evals.evaluate_tasks import Progress as Tell
from evals.evaluate_tasks import evaluate_tasks, find_task
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
    for name in (part.strip() for one in asked for part in one.split(",") if part.strip()):
        chosen = benchmark_table.TASK_SETS.get(name)
        names += (
            [find_task(name, sets=benchmark_table.TASK_SETS).name] if chosen is None else [row.task for row in chosen]
        )
        published = benchmark_table.GPT2_TABLE if chosen is None else chosen
        rows += [row for row in published if chosen is not None or row.task == name]
    return list(dict.fromkeys(names)), list(dict.fromkeys(rows))


def refuse_given(options: Mapping[str, object], *, with_tasks: bool) -> None:
    """BadInput for an option of the other kind of evaluation that was given."""
    of, remedy = ("held-out data", "leave out") if with_tasks else ("benchmark tasks", "say which with")
    refuse_options(options, f"is of {of} alone; {remedy} --tasks")


def run_tasks(
    target: Target,
    tasks: Sequence[str],
    console: Console,
    *,
    beside: Sequence[str],
    data_directory: Path | None,
    out: Path | None,
    tables: Sequence[Path],
    rows: int,
    limit: int | None,
    workers: int,
) -> benchmark_table.Report:
    """Evaluate, show progress and table, write the tables asked for. BadInput where something cannot be used.

    BadInput too, after the table, where no task gave the target a number. The targets of `beside` answer the same
    tasks; what each keeps goes to a file beside `out`.
    """
    names, lines = task_names(tasks)
    if not names:
        raise BadInput("--tasks: names no task; `evaluate --list` names all")
    for path in tables:
        table_files.check_format(path)
        if out is not None and path.absolute() == out.absolute():
            raise BadInput(f"--table {path}: is --out too; give them two files")
    if data_directory is not None and not data_directory.is_dir():
        raise BadInput(f"--data-dir {data_directory}: there is no such directory")
    for name in beside:
        Target(name).check()  # a wrong one is found before hours are spent
    source = DataSource(data_directory)
    columns: list[benchmark_table.Column] = []
    targets = (target, *map(Target, beside))
    short = [one.short_name for one in targets]
    names_shown = short if len(set(short)) == len(short) else [one.name for one in targets]
    for number, one in enumerate(targets):
        kept = out if out is None or number == 0 else out.with_name(f"{out.stem}.beside-{number}{out.suffix}")
        with closing(ResultsFile(kept)) as results, _progress(console, one) as tell:
            told = _announced(tell, console, kept, results.num_records)
            found = list(
                evaluate_tasks(one, names, source, results, rows=rows, limit=limit, workers=workers, progress=told)
            )
        columns.append(benchmark_table.Column(names_shown[number], found))
    title = f"zero-shot, {target.short_name}" + ("" if limit is None else f", the first {limit} examples of each")
    report = benchmark_table.Report(title, columns[0], lines, columns[1:])
    for path in tables:
        table_files.write(path, report)
    for table in benchmark_table.tables(report, console.width):
        console.print(table)
    for line in (benchmark_table.LEGEND, *report.notes()):
        console.print(line, highlight=False, soft_wrap=True)
    for path in tables:
        console.print(f"{path}: the table", highlight=False)
    if not report.main.metrics():
        raise BadInput("--tasks: none of them gave a number; what stands under the table says why")
    return report


def _announced(tell: Tell, console: Console, kept: Path | None, num_records: int) -> Tell:
    """`tell`, which first says once what it goes on after: by then the file was found to fit what is asked."""
    lines = [f"{kept}: goes on after the {num_records:,} results that it has"] if num_records else []

    def told(task: str, done: int, total: int) -> None:
        while lines:
            console.print(lines.pop(), highlight=False)
        tell(task, done, total)

    return told


@contextmanager
def _progress(console: Console, target: Target) -> Iterator[Tell]:
    """A bar for each task."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        bars: dict[str, TaskID] = {}

        def tell(task: str, done: int, total: int) -> None:
            if task not in bars:
                bars[task] = progress.add_task(f"{target.short_name} {task}", total=total)
            progress.update(bars[task], completed=done)

        yield tell


def task_list() -> Table:
    """All tasks, and the sets of them."""
    shown = Table("task", "version", "what it is")
    for name, task in TASKS.items():
        shown.add_row(name, str(task.version), task.title)
    for name, lines in benchmark_table.TASK_SETS.items():
        shown.add_row(name, "", ", ".join(dict.fromkeys(line.task for line in lines)))
    return shown
