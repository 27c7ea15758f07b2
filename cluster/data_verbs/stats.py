"""`data stats`: how long documents are, and how many tokens and bytes there are, by source and split."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.text import Text

from cluster.data_verbs.target import Target
from cluster.tables import table
from cluster.terminal import check_writable
from data_pipeline.config import BadInput
from data_pipeline.prepared_text import PreparedText
from data_pipeline.shards import TokenShards

WIDTH = 40
"""Of the longest bar."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """One split of one source."""

    source: str
    split: str
    lengths: np.ndarray
    """[documents] int64: tokens of each, ends included."""
    num_bytes: int | None
    """Of the text; None where there was none."""

    @property
    def name(self) -> str:
        return f"{self.source} {self.split}".strip()

    @property
    def num_tokens(self) -> int:
        return int(self.lengths.sum())

    def bins(self) -> list[tuple[int, int]]:
        """Documents of 2**i to 2**(i + 1) - 1 tokens: (2**i, how many), from the shortest to the longest."""
        powers = np.bincount(np.frexp(self.lengths)[1] - 1)
        return [(1 << power, int(count)) for power, count in enumerate(powers) if power >= _first(powers)]

    def to_json(self) -> dict[str, Any]:
        quantiles = np.quantile(self.lengths, (0.0, 0.5, 0.9, 1.0), method="inverted_cdf")
        return {
            "source": self.source,
            "split": self.split,
            "documents": len(self.lengths),
            "tokens": self.num_tokens,
            "bytes": self.num_bytes,
            "bytes_per_token": None if self.num_bytes is None else self.num_bytes / self.num_tokens,
            "length": dict(zip(("least", "median", "ninety_percent", "most"), map(int, quantiles), strict=True)),
            "histogram": [{"from": start, "to": 2 * start - 1, "documents": count} for start, count in self.bins()],
        }


def _first(counts: np.ndarray) -> int:
    return int(np.flatnonzero(counts)[0])


def lengths_of(target: Target) -> Iterator[Lengths]:
    """Of every split of every source; BadInput where the data are no documents of tokens."""
    for name, source in target.documents_of().items():
        for split in source.splits():
            documents = source.documents(split)
            num_bytes = documents.num_bytes if isinstance(documents, TokenShards) else None
            yield Lengths(name, split, documents.lengths, num_bytes)


def show_stats(target: Target, *, picture: Path | None, as_json: bool, console: Console) -> None:
    """A table, a histogram of each, and with `picture` a PNG of them."""
    if picture is not None:
        if picture.suffix.lower() != ".png":
            raise BadInput(f"--png {picture}: pictures are PNG; name it {picture.stem}.png")
        check_writable(picture, "--png")
    found = list(lengths_of(target))
    left_out = [
        line
        for source in target.documents_of().values()
        if isinstance(source, PreparedText)
        for line in source.warnings()
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
    made = table(
        target.name, "split", "documents>", "tokens>", "bytes>", "bytes/token>", "median>", "longest>", lines=False
    )
    made.padding = (0, 1)
    for one in found:
        said = one.to_json()
        sizes = ("", "") if one.num_bytes is None else (f"{one.num_bytes:,}", f"{said['bytes_per_token']:.2f}")
        length = said["length"]
        made.add_row(
            one.name,
            f"{said['documents']:,}",
            f"{said['tokens']:,}",
            *sizes,
            f"{length['median']:,}",
            f"{length['most']:,}",
        )
    console.print(made)
    for one in found:
        console.print(Text(f"\n{one.name}: documents by tokens", style="bold"))
        for line in bars(one.bins()):
            console.print(line, soft_wrap=True, highlight=False)


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
        axes.set_ylabel("documents")
        axes.set_title(
            f"{one.name}: {len(one.lengths):,} documents, {one.num_tokens:,} tokens", fontsize=9, parse_math=False
        )
    axes.set_xlabel("tokens, from")
    try:
        FigureCanvasAgg(figure).print_png(str(path))
    except OSError as error:
        raise BadInput(f"--png {path}: cannot be written: {error.strerror}") from error
