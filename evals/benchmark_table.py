"""The zero-shot table: what was measured beside what was published.

Published: Radford et al. 2019 (https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf,
table 3, and OpenAI's announcement of it, which has the people's column); Dai et al. 2019
(https://arxiv.org/abs/1901.02860, tables 1 to 5).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

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
    count: int | None = None
    """The n of the whole test set, where it is known for certain."""
    border: int = 0
    """By how much it may differ: bytes that a character at the border of a split may take from it."""


GPT2_TABLE = (
    Row("WSC273, partial", "wsc273", "accuracy/partial", "70.70", "63.7", "92+", count=273),
    Row("LAMBADA accuracy", "lambada", "accuracy/last_token/stop_word_filter", "63.24", "59.23", "95+", count=5153),
    Row("LAMBADA perplexity", "lambada", "perplexity", "8.63", "99", "1-2", count=5153),
    Row("CBT common nouns", "cbt_cn", "accuracy", "93.30", "85.7", "96", count=2000),
    Row("CBT named entities", "cbt_ne", "accuracy", "89.05", "82.3", "92", count=2000),
    Row("Penn Treebank", "ptb", "perplexity/words_and_line_ends", "35.76", "46.54", "", "54.5", count=82430),
    Row("WikiText-2", "wikitext2", "perplexity/words_and_line_ends", "18.34", "39.14", count=245_569),
    Row("enwik8 bits/byte", "enwik8", "bits_per_byte", "0.93", "0.99", "", "0.99", count=5_000_000, border=3),
    Row("text8 bits/character", "text8", "bits_per_character", "0.98", "1.08", "", "1.08", count=5_000_000),
    Row("WikiText-103", "wikitext103", "perplexity/words_and_line_ends", "17.48", "18.3", "", "18.3", count=245_569),
    Row("One Billion Word", "one_billion_word", "perplexity/words_and_sentence_ends", "42.16", "21.8", "", "21.8"),
)

TASK_SETS: dict[str, tuple[Row, ...]] = {"gpt2-table": GPT2_TABLE}

COLUMNS = ("task", "measured", "n", "GPT-2", "record", "people", "T-XL")
LEGEND = (
    "GPT-2: of 1.5B parameters, zero-shot; record: the best before it; T-XL: Transformer-XL, trained on each corpus. "
    "LAMBADA accuracy: of the last token, stop words filtered. Perplexities: per word or end of line"
)
UNSPELT, PARTIAL = "†", "‡"


def number(value: float) -> str:
    """As tables print it: two decimals, or four digits of what is large."""
    return f"{value:.2f}" if abs(value) < 10_000 else f"{value:.3e}"


def measured(metric: Metric, *, with_error: bool = True) -> str:
    """With its standard error, and a mark where the tokenizer could not spell what was scored."""
    unit = "%" if metric.unit == "%" else ""
    error = "" if metric.stderr is None or not with_error else f" ± {number(metric.stderr)}"
    return f"{number(metric.value)}{unit}{error}" + (f" {UNSPELT}" if _incomplete(metric) else "")


def is_part(row: Row, metric: Metric) -> bool:
    """Whether the number is of another set than the published ones: a part of it, or another file."""
    return row.count is not None and abs(metric.count - row.count) > row.border


def _incomplete(metric: Metric) -> bool:
    """Whether the tokens do not say all that is divided by."""
    of_every_byte = metric.unit in ("bits/byte", "bits/character")
    lossy = not metric.protocol.get("tokenizer_lossless", True)
    return bool(metric.protocol.get("unknown_tokens")) or (of_every_byte and lossy)


@dataclass(frozen=True)
class Column:
    """What one target scored."""

    name: str
    results: Sequence[TaskResult]

    def metrics(self) -> dict[str, Metric]:
        return {metric.name: metric for result in self.results for metric in result.metrics}

    def cell(self, name: str) -> str:
        """The number of that name, or why there is none."""
        metric = self.metrics().get(name)
        if metric is not None:
            return measured(metric, with_error=False)
        own = max((one for one in self.results if name.startswith(f"{one.task}/")), key=_length, default=None)
        return "" if own is None or own.missing is None else own.missing.partition(":")[0]

    def cuts(self) -> list[str]:
        """A line for each task of which it did not read every context whole."""
        told = {metric.protocol["task"]: metric.protocol for metric in self.metrics().values()}
        return [
            f"{self.name}: context cut in {protocol['truncated']:,} of {protocol['examples']:,} examples of {task}"
            for task, protocol in told.items()
            if protocol.get("truncated")
        ]

    def reads(self) -> str | None:
        """How much of a text it sees at a time; None where it has no number, or is no network."""
        protocol: dict[str, Any] = next((dict(metric.protocol) for metric in self.metrics().values()), {})
        model = protocol.get("model", {})
        if "target_length" in model:
            return f"reads {model['target_length']} tokens at a time, with a memory of {model['memory_length']}"
        if "context" in model:
            return f"reads {model['context']} tokens at a time, in running text with a stride of {protocol['stride']}"
        return None


def _length(result: TaskResult) -> int:
    """Of its task's name: the longest that fits is the one that is meant."""
    return len(result.task)


@dataclass(frozen=True)
class Report:
    """A target's numbers, with those of others beside it."""

    title: str
    main: Column
    rows: Sequence[Row]
    beside: Sequence[Column] = ()

    def header(self) -> tuple[str, ...]:
        return (*COLUMNS[:3], *(column.name for column in self.beside), *COLUMNS[3:])

    def published(self) -> list[tuple[str, ...]]:
        """The lines that have published numbers."""
        metrics = self.main.metrics()
        reasons = {result.task: result.missing for result in self.main.results if result.missing is not None}
        found: list[tuple[str, ...]] = []
        for row in self.rows:
            name = f"{row.task}/{row.value}"
            others = (row.gpt2, row.record, row.human, row.transformer_xl)
            if row.task in reasons:
                found.append((row.title, reasons[row.task].partition(":")[0], "", *self._beside(name), *others))
            elif name in metrics:
                value, count, *beside = self._own(metrics[name])
                mark = f" {PARTIAL}" if is_part(row, metrics[name]) else ""
                found.append((row.title, value, count + mark, *beside, *others))
        return found

    def further(self) -> list[tuple[str, ...]]:
        """All other numbers of the tasks."""
        shown = {f"{row.task}/{row.value}" for row in self.rows}
        found: list[tuple[str, ...]] = []
        for result in self.main.results:
            if result.missing is not None and result.task not in {row.task for row in self.rows}:
                found.append((result.task, result.missing.partition(":")[0], "", *self._beside(None)))
            found += [(metric.name, *self._own(metric)) for metric in result.metrics if metric.name not in shown]
            if result.missing is not None:
                reason = result.missing.partition(":")[0]
                found += [(name, reason, "", *self._beside(name)) for name in sorted(self._others(result.task) - shown)]
        return found

    def _others(self, task: str) -> set[str]:
        """The numbers that targets beside have of a task."""
        return {one.name for column in self.beside for one in column.metrics().values() if one.protocol["task"] == task}

    def _own(self, metric: Metric) -> tuple[str, ...]:
        return measured(metric), f"{metric.count:,}", *self._beside(metric.name)

    def _beside(self, name: str | None) -> list[str]:
        return [column.cell(name or "") for column in self.beside]

    def notes(self) -> list[str]:
        """What the numbers need to be read."""
        found = list(dict.fromkeys(one.missing for one in self.main.results if one.missing is not None))
        metrics = self.main.metrics()
        for row in self.rows:
            metric = metrics.get(f"{row.task}/{row.value}")
            if metric is not None and is_part(row, metric):
                found.append(
                    f"{PARTIAL} {row.title}: not the test set of the published numbers, whose n is {row.count:,}"
                )
        if len({column.reads() for column in (self.main, *self.beside)} - {None}) > 1:
            found += [f"{column.name} {column.reads()}" for column in (self.main, *self.beside) if column.reads()]
        for column in (self.main, *self.beside):
            own = [one.missing for one in column.results if one.missing is not None]
            found += [f"{column.name}: {why}" for why in own if why not in found]
            found += column.cuts()
            marked = [metric for metric in column.metrics().values() if _incomplete(metric)]
            counts = {metric.protocol["task"]: metric.protocol["unknown_tokens"] for metric in marked}
            if counts:
                tasks = ", ".join(f"{count:,} of {task}" for task, count in counts.items())
                found.append(
                    f"{UNSPELT} {column.name} cannot spell all words (unknown: {tasks}) or blanks. It predicts only "
                    "that words are unknown, so its number is no measure of the text"
                )
        return found


def tables(report: Report, width: int) -> list[Table]:
    """For a terminal of so many columns: the published lines, then the others. Where it is too narrow for the first
    with the targets beside, these stand in the second alone."""
    header, published, further = report.header(), report.published(), report.further()
    beside = slice(3, 3 + len(report.beside))
    if report.beside and _width(header, published) > width:
        further = [line[: beside.stop] for line in published] + further
        header, published = header[:3] + header[beside.stop :], [line[:3] + line[beside.stop :] for line in published]
    made: list[Table] = []
    for names, body in ((header, published), (report.header()[: beside.stop], further)):
        table = Table(title=None if made else report.title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for place, name in enumerate(names):
            table.add_column(name if place == 0 else _folded(name), overflow="fold", no_wrap=place > 0)
        for line in body:
            table.add_row(*line)
        if body:
            made.append(table)
    return made


def _width(header: Sequence[str], body: Sequence[Sequence[str]]) -> int:
    """Columns of a terminal that a table takes where nothing is folded but the names of targets."""
    lines = [[_folded(name) for name in header], *body]
    cells = zip(*lines, strict=True)
    return 2 + sum(2 + max(len(part) for cell in column for part in cell.split("\n")) for column in cells)


def _folded(name: str) -> str:
    """In lines of about ten characters, cut where a target's name may be."""
    lines = [""]
    for part in re.split(r"(?<=[:._-])", name):
        if lines[-1] and len(lines[-1] + part) > 12:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)
