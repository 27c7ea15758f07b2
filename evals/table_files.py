"""The table as a file: Markdown and PNG to read, JSON and CSV for programs."""

import csv
import io
import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_pipeline.config import BadInput
from evals.benchmark_table import LEGEND, Report, is_part

FORMATS = (".md", ".json", ".csv", ".png")
FIELDS = ("target", "task", "metric", "value", "stderr", "count", "unit", "better", "missing")
CAVEATS = ("limit", "truncated", "unknown_tokens", "tokenizer_lossless", "whole_test_set")
"""Of the protocol, and what the table's marks and notes say; `whole_test_set` is empty where no n is published."""
PUBLISHED = ("gpt2", "record", "human", "transformer_xl")


def write(path: Path, report: Report) -> None:
    """As Markdown, JSON, CSV or PNG, by the file's ending; BadInput for any other, or where it cannot be written."""
    check_format(path)
    header = report.header()
    body = [(*line, *([""] * (len(header) - len(line)))) for line in (*report.published(), *report.further())]
    try:
        if path.suffix == ".png":
            _write_png(path, header, body, report)
        elif path.suffix == ".json":
            path.write_text(json.dumps(_plain(report), indent=1) + "\n", encoding="utf-8")
        elif path.suffix == ".csv":
            path.write_text(_csv(report), encoding="utf-8")
        else:
            path.write_text(_markdown(header, body, report), encoding="utf-8")
    except OSError as error:
        raise BadInput(f"--table {path}: cannot be written: {error.strerror}") from error


def check_format(path: Path) -> None:
    """BadInput where the ending says no format."""
    if path.suffix not in FORMATS:
        raise BadInput(f"--table {path}: must end in one of {', '.join(FORMATS)}")


def _plain(report: Report) -> dict[str, Any]:
    return {
        "title": report.title,
        "targets": [
            {
                "target": column.name,
                "tasks": [
                    {"task": one.task, "missing": one.missing, "metrics": [metric.to_json() for metric in one.metrics]}
                    for one in column.results
                ],
            }
            for column in (report.main, *report.beside)
        ],
    }


def _markdown(header: Sequence[str], body: Sequence[Sequence[str]], report: Report) -> str:
    rule = ("---",) * len(header)
    table = "".join(f"| {' | '.join(line)} |\n" for line in (header, rule, *body))
    return f"{report.title}\n\n{table}\n" + "".join(f"{line}.\n" for line in (LEGEND, *report.notes()))


def _csv(report: Report) -> str:
    """A line for each number of each target, none of them rounded; what was published beside it."""
    rows = {f"{row.task}/{row.value}": row for row in report.rows}
    kept = io.StringIO()
    lines = csv.DictWriter(kept, (*FIELDS, *CAVEATS, *PUBLISHED), lineterminator="\n")
    lines.writeheader()
    for column in (report.main, *report.beside):
        for one in column.results:
            found = {"target": column.name, "task": one.task}
            if one.missing is not None:
                lines.writerow(found | {"missing": one.missing})
            for metric in one.metrics:
                row = rows.get(metric.name)
                published = {} if row is None else {name: getattr(row, name) for name in PUBLISHED}
                fields = {name: getattr(metric, name) for name in ("value", "stderr", "count", "unit", "better")}
                caveats = {name: metric.protocol.get(name) for name in CAVEATS[:-1]}
                if row is not None and row.count is not None:
                    caveats["whole_test_set"] = not is_part(row, metric)
                lines.writerow(found | {"metric": metric.name} | fields | caveats | published)
    return kept.getvalue()


def _write_png(path: Path, header: Sequence[str], body: Sequence[Sequence[str]], report: Report) -> None:
    from matplotlib.figure import Figure

    notes = [part for line in (LEGEND, *report.notes()) for part in textwrap.wrap(line, 150)]
    figure = Figure(figsize=(13, 0.6 + 0.28 * (len(body) + 1) + 0.17 * len(notes)))
    axes = figure.add_subplot()
    axes.axis("off")
    axes.set_title(report.title, loc="left")
    short = [[cell if len(cell) < 60 else cell[:57] + "..." for cell in line] for line in body]
    made = axes.table(cellText=short, colLabels=header, loc="upper left", cellLoc="left")
    made.auto_set_font_size(False)
    made.set_fontsize(8)
    made.auto_set_column_width(list(range(len(header))))
    figure.canvas.draw()
    below = made.get_window_extent().transformed(axes.transAxes.inverted()).y0
    axes.text(0, below - 0.02, "\n".join(notes), fontsize=7, va="top", transform=axes.transAxes)
    figure.savefig(path, dpi=150, bbox_inches="tight")
