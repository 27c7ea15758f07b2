"""A picture of what each target token read of the source, and of how far the source had been read when it was written.

Rows are target tokens from the top, columns source tokens; the darker, the more was read. The line is the read path:
to its right nothing had been seen yet, but that the source may have ended, a column that is no token (Bahdanau et al.
2015, figure 3, and Arivazhagan et al. 2019, figure 1).

Shape legend: T target tokens, S source tokens.
"""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from data_pipeline.config import BadInput

INCH_PER_TOKEN = 0.35
MARGIN = 1.6


def write_alignment(
    weights_TS: Tensor, *, sources: Sequence[str], targets: Sequence[str], reads: Sequence[int], path: Path
) -> None:
    """A PNG. `sources` and `targets` are what to write beside the axes, `reads` g(i) of each target token.

    Raises BadInput where sizes differ, or the file cannot be written.
    """
    num_targets, num_sources = len(targets), len(sources)
    fits = weights_TS.shape == (num_targets, num_sources) and len(reads) == num_targets
    if not fits or not weights_TS.numel():
        raise BadInput(
            f"weights {list(weights_TS.shape)}, {len(reads)} reads, {num_targets} targets, {num_sources} sources: "
            "there must be a row and a read for each target, a column for each source, and at least one of both"
        )
    from matplotlib.figure import Figure

    width, height = (MARGIN + INCH_PER_TOKEN * size for size in (num_sources, num_targets))
    figure = Figure(figsize=(width, height))
    axes = figure.add_subplot()
    axes.imshow(weights_TS.float().cpu().numpy(), cmap="Greys", vmin=0.0, vmax=1.0, aspect="equal")
    axes.set_xticks(range(num_sources), sources, rotation=90, parse_math=False)
    axes.set_yticks(range(num_targets), targets, parse_math=False)
    axes.xaxis.tick_top()
    axes.set_xlabel("source, and how far it was read (red)")
    axes.xaxis.set_label_position("top")
    axes.set_ylabel("target")
    xs, ys = read_path(reads)
    axes.plot(xs, ys, color="tab:red", linewidth=2.0)
    axes.set_xlim(-0.5, num_sources - 0.5)
    axes.set_ylim(num_targets - 0.5, -0.5)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="png", dpi=120, bbox_inches="tight")
    except OSError as error:
        raise BadInput(f"{path}: cannot be written: {error.strerror}") from error


def read_path(reads: Sequence[int]) -> tuple[list[float], list[float]]:
    """The corners of the line, x and y, in columns and rows of the picture, whose first cell's middle is at 0.

    >>> read_path((2, 3))
    ([1.5, 1.5, 2.5, 2.5], [-0.5, 0.5, 0.5, 1.5])
    """
    xs = [read - 0.5 for read in reads for _ in range(2)]
    ys = [i + edge for i in range(len(reads)) for edge in (-0.5, 0.5)]
    return xs, ys
