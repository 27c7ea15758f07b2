"""Points of a plane beside those of the data."""

from pathlib import Path

from torch import Tensor

from data_pipeline.config import BadInput


def write_points(path: Path, points_N2: Tensor, data_N2: Tensor) -> None:
    """Two clouds side by side on the same axes, as PNG; BadInput where it cannot be written."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    shared = None
    for place, (title, cloud_N2) in enumerate((("data", data_N2), ("model", points_N2)), start=1):
        axes = figure.add_subplot(1, 2, place, sharex=shared, sharey=shared)
        axes.scatter(cloud_N2[:, 0], cloud_N2[:, 1], s=2)
        axes.set(title=title, aspect="equal")
        shared = shared or axes
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="png", dpi=100)
    except OSError as error:
        raise BadInput(f"{path}: cannot be written: {error.strerror}") from error
