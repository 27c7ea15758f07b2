"""The zero-shot table: what was measured beside what was published.

Published: Radford et al. 2019 (https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf,
table 3, and OpenAI's announcement of it, which has the people's column); Dai et al. 2019
(https://arxiv.org/abs/1901.02860, tables 1 to 5).
"""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from data_pipeline.config import BadInput
from evals.evaluate_tasks import TaskResult
from evals.metric import Metric


@dataclass(frozen=True, slots=True)
class Row:
    """One line: which number of which task, and what others published for it."""

    title: str
    task: str
    value: str
    """The task's name for the number."""
    gpt2: str = ""
    """Of 1.5B parameters, zero-shot."""
    record: str = ""
    """The best before it, trained on the task."""
    human: str = ""
    transformer_xl: str = ""
    """The best of the paper, trained on the corpus."""


GPT2_TABLE = (
    Row("Winograd Schema Challenge, partial", "wsc273", "accuracy/partial", "70.70", "63.7", "92+"),
    Row("LAMBADA, accuracy", "lambada", "accuracy/last_token/stop_word_filter", "63.24", "59.23", "95+"),
    Row("LAMBADA, perplexity", "lambada", "perplexity", "8.63", "99", "1-2"),
    Row("Children's Book Test, common nouns", "cbt_cn", "accuracy", "93.30", "85.7", "96"),
    Row("Children's Book Test, named entities", "cbt_ne", "accuracy", "89.05", "82.3", "92"),
    Row("Penn Treebank", "ptb", "perplexity/words_and_line_ends", "35.76", "46.54", "", "54.5"),
    Row("WikiText-2", "wikitext2", "perplexity/words_and_line_ends", "18.34", "39.14"),
    Row("enwik8, bits per byte", "enwik8", "bits_per_byte", "0.93", "0.99", "", "0.99"),
    Row("text8, bits per character", "text8", "bits_per_character", "0.98", "1.08", "", "1.08"),
    Row("WikiText-103", "wikitext103", "perplexity/words_and_line_ends", "17.48", "18.3", "", "18.3"),
    Row("One Billion Word", "one_billion_word", "perplexity/words_and_sentence_ends", "42.16", "21.8", "", "21.8"),
)

TASK_SETS: dict[str, tuple[Row, ...]] = {"gpt2-table": GPT2_TABLE}

NO_DATA = "no data"

COLUMNS = ("task", "measured", "n", "GPT-2 1.5B", "previous record", "human", "Transformer-XL")
FORMATS = (".md", ".json", ".csv", ".png")


def number(value: float) -> str:
    """As tables print it: two decimals, or four digits of what is large."""
    return f"{value:.2f}" if abs(value) < 10_000 else f"{value:.3e}"


def measured(metric: Metric) -> str:
    """With its standard error."""
    unit = "%" if metric.unit == "%" else ""
    error = "" if metric.stderr is None else f" ± {number(metric.stderr)}"
    return f"{number(metric.value)}{unit}{error}"


def lines(results: Sequence[TaskResult], rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """The table's lines: those that have published numbers, then all other numbers of the tasks."""
    metrics = {metric.name: metric for result in results for metric in result.metrics}
    reasons = {result.task: result.missing for result in results if result.missing is not None}
    evaluated = {result.task: result for result in results}
    found: list[tuple[str, ...]] = []
    shown: set[str] = set()
    for row in rows:
        name = f"{row.task}/{row.value}"
        if row.task in reasons:
            found.append((row.title, f"{NO_DATA}: {reasons[row.task]}", "", *_published(row)))
        elif name in metrics:
            shown.add(name)
            found.append((row.title, measured(metrics[name]), f"{metrics[name].count:,}", *_published(row)))
    titled = {row.task for row in rows}
    for task, result in evaluated.items():
        if result.missing is not None and task not in titled:
            found.append((result.title, f"{NO_DATA}: {result.missing}", "", "", "", "", ""))
        for metric in result.metrics:
            if metric.name not in shown:
                found.append((metric.name, measured(metric), f"{metric.count:,}", "", "", "", ""))
    return found


def _published(row: Row) -> tuple[str, str, str, str]:
    return row.gpt2, row.record, row.human, row.transformer_xl


def table(results: Sequence[TaskResult], rows: Sequence[Row], title: str) -> Table:
    """For a terminal."""
    shown = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in COLUMNS:
        shown.add_column(name, overflow="fold")
    for name, value, *rest in lines(results, rows):
        shown.add_row(name, NO_DATA if value.startswith(NO_DATA) else value, *rest)
    return shown


def missing(results: Sequence[TaskResult]) -> list[str]:
    """Why tasks have no number, a line each."""
    return [f"{NO_DATA}: {result.missing}" for result in results if result.missing is not None]


def write(path: Path, results: Sequence[TaskResult], rows: Sequence[Row], title: str) -> None:
    """As Markdown, JSON, CSV or PNG, by the file's ending; BadInput for any other, or where it cannot be written."""
    body = lines(results, rows)
    check_format(path)
    try:
        if path.suffix == ".png":
            _write_png(path, body, title)
        else:
            text = {".md": _markdown, ".csv": _csv}.get(path.suffix)
            content = json.dumps(_plain(results), indent=1) + "\n" if text is None else text(body)
            path.write_text(content, encoding="utf-8")
    except OSError as error:
        raise BadInput(f"--table {path}: cannot be written: {error.strerror}") from error


def check_format(path: Path) -> None:
    """BadInput where the ending says no format."""
    if path.suffix not in FORMATS:
        raise BadInput(f"--table {path}: must end in one of {', '.join(FORMATS)}")


def _plain(results: Iterable[TaskResult]) -> list[dict[str, Any]]:
    return [
        {"task": result.task, "missing": result.missing, "metrics": [metric.to_json() for metric in result.metrics]}
        for result in results
    ]


def _markdown(body: Sequence[Sequence[str]]) -> str:
    rule = ("---",) * len(COLUMNS)
    return "".join(f"| {' | '.join(line)} |\n" for line in (COLUMNS, rule, *body))


def _csv(body: Sequence[Sequence[str]]) -> str:
    kept = io.StringIO()
    csv.writer(kept, lineterminator="\n").writerows((COLUMNS, *body))
    return kept.getvalue()


def _write_png(path: Path, body: Sequence[Sequence[str]], title: str) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 0.6 + 0.28 * (len(body) + 1)), layout="constrained")
    axes = figure.add_subplot()
    axes.axis("off")
    axes.set_title(title, loc="left")
    short = [[cell if len(cell) < 60 else cell[:57] + "..." for cell in line] for line in body]
    made = axes.table(cellText=short, colLabels=COLUMNS, loc="upper left", cellLoc="left")
    made.auto_set_font_size(False)
    made.set_fontsize(8)
    made.auto_set_column_width(list(range(len(COLUMNS))))
    figure.savefig(path, dpi=150)
