"""The loss of a run as a picture, on the terminal and as a file."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from pretrain.metrics_log import read_rows
from pretrain.run_directory import read_events

BLOCKS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], *, width: int) -> str:
    """One line of blocks, each the mean of its share of the values, from the least to the greatest.

    >>> sparkline([3.0, 2.0, 1.0, 1.0], width=3)
    '█▃▁  3.000 -> 1.000'
    """
    count = min(width, len(values))
    cuts = [round(i * len(values) / count) for i in range(count + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(cuts)]
    low, span = min(means), max(means) - min(means) or 1.0
    blocks = "".join(BLOCKS[round((mean - low) / span * (len(BLOCKS) - 1))] for mean in means)
    return f"{blocks}  {values[0]:.3f} -> {values[-1]:.3f}"


def draw_loss(directory: Path) -> Path:
    """loss.png in the run directory: loss by step, with a line at each checkpoint that was gone back to."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = read_rows(directory)
    figure = Figure(figsize=(8.0, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([row["step"] for row in rows], [row["loss"] for row in rows], linewidth=1.0)
    for step in resumed_steps(directory):
        axes.axvline(step, color="tab:red", linestyle="--", linewidth=1.0)
        axes.annotate(
            f"carried on from step {step}",
            (step, 0.97),
            xycoords=("data", "axes fraction"),
            fontsize=8,
            rotation=90,
            va="top",
            ha="right",
        )
    axes.set_xlabel("step")
    axes.set_ylabel(rows[-1]["unit"] if rows else "loss")
    axes.set_title(directory.name)
    axes.grid(alpha=0.3)
    path = directory / "loss.png"
    FigureCanvasAgg(figure).print_png(str(path))
    return path


def resumed_steps(directory: Path) -> list[int]:
    """The steps at which the run was taken up again, by its events."""
    return [event["step"] for event in read_events(directory) if event["event"] == "resumed"]
