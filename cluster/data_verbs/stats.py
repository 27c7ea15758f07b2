"""`data stats`: how long documents and items are, and how many tokens and bytes there are, by source and split."""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from cluster.data_verbs.lengths import Lengths, lengths_of
from cluster.data_verbs.target import Target
from cluster.tables import table
from cluster.terminal import check_writable
from data_pipeline.config import BadInput
from data_pipeline.prepared_text import PreparedText

WIDTH = 40
"""Of the longest bar."""


def show_stats(target: Target, *, picture: Path | None, as_json: bool, console: Console) -> None:
    """A table, a histogram of each, and with `picture` a PNG of them."""
    if picture is not None:
        if picture.suffix.lower() != ".png":
            raise BadInput(f"--png {picture}: pictures are PNG; name it {picture.stem}.png")
        check_writable(picture, "--png")
    found = list(lengths_of(target))
    left_out = [
        line for source in target.sources().values() if isinstance(source, PreparedText) for line in source.warnings()
    ]
    if as_json:
        print(
            json.dumps(
                {"target": target.name, "splits": [one.to_json() for one in found], "left_out": left_out}, indent=2
            )
        )
    else:
        for line in left_out:
            console.print(Text(line, style="red"), soft_wrap=True)
        _print(target, found, console)
    if picture is not None:
        draw(found, picture, target.name)


def _print(target: Target, found: Sequence[Lengths], console: Console) -> None:
    rows = [_cells(one) for one in found]
    made = table(target.name, "split", *(f"{name}>" for name in rows[0]), lines=False)
    made.padding = (0, 1)
    for one, cells in zip(found, rows, strict=True):
        made.add_row(one.name, *cells.values())
    console.print(made)
    for one in found:
        if one.classes:
            said = ", ".join(f"{name}: {count:,}" for name, count in one.classes.items())
            console.print(Text(f"\n{one.name}: {one.counted} by class: {said}"), soft_wrap=True, highlight=False)
        console.print(Text(f"\n{one.name}: {one.counted} by {one.unit}", style="bold"))
        for line in bars(one.bins()):
            console.print(line, soft_wrap=True, highlight=False)


def _cells(one: Lengths) -> dict[str, str]:
    """By the heads of their columns."""
    said = one.to_json()
    cells = {name: f"{said[name]:,}" for name in (one.counted, one.unit)}
    if one.unit != "bytes":
        cells["bytes"] = "" if one.num_bytes is None else f"{one.num_bytes:,}"
    if one.unit == "tokens":
        cells[one.per_unit.replace("_per_", "/")] = "" if one.num_bytes is None else f"{said[one.per_unit]:.2f}"
    if one.rate is not None:
        cells["seconds"] = f"{said['seconds']:,.1f}"
    return cells | {"median": f"{said['length']['median']:,}", "longest": f"{said['length']['most']:,}"}


def bars(bins: Sequence[tuple[int, int]]) -> Iterator[Text]:
    """A line for each bin; a bar is as long as its share of the fullest."""
    most = max(count for _, count in bins)
    wide, digits = len(f"{2 * bins[-1][0] - 1:,}"), len(f"{most:,}")
    for start, count in bins:
        bar = "█" * math.ceil(WIDTH * count / most)
        yield Text.assemble(f"{start:>{wide},} - {2 * start - 1:>{wide},}  {count:>{digits},} ", (bar, "cyan"))


def draw(found: Sequence[Lengths], path: Path, title: str) -> None:
    """The histograms below one another."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 2.2 * len(found) + 0.6), layout="constrained")
    figure.suptitle(title, parse_math=False)
    for place, one in enumerate(found, start=1):
        axes = figure.add_subplot(len(found), 1, place)
        bins = one.bins()
        axes.bar(range(len(bins)), [count for _, count in bins], width=0.9)
        axes.set_xticks(range(len(bins)), [f"{start:,}" for start, _ in bins], rotation=45, fontsize=7)
        axes.set_ylabel(one.counted)
        axes.set_title(
            f"{one.name}: {len(one.lengths):,} {one.counted}, {one.total:,} {one.unit}", fontsize=9, parse_math=False
        )
    axes.set_xlabel(f"{found[-1].unit}, from")
    try:
        FigureCanvasAgg(figure).print_png(str(path))
    except OSError as error:
        raise BadInput(f"--png {path}: cannot be written: {error.strerror}") from error
