"""Piano rolls: time from left to right, keys from the bottom up.

Shape legend: N rolls, T steps, K keys.
"""

from pathlib import Path

from torch import Tensor

from data_pipeline.config import BadInput

LOWEST = 21
"""The MIDI note number of a piano's lowest key."""
OCTAVE = 12


def write_piano_rolls(path: Path, rolls_NTK: Tensor) -> None:
    """One below the other, as PNG; the darker, the louder or likelier. BadInput where it cannot be written."""
    from matplotlib.figure import Figure

    count, steps, keys = rolls_NTK.shape
    figure = Figure(figsize=(min(16.0, max(4.0, 0.1 * steps)), 2.0 * count), layout="constrained")
    cs = range(2 * OCTAVE, LOWEST + keys, OCTAVE)
    for row, roll_TK in enumerate(rolls_NTK):
        axes = figure.add_subplot(count, 1, row + 1)
        axes.imshow(
            roll_TK.float().cpu().numpy().T,
            cmap="Greys",
            vmin=0.0,
            vmax=1.0,
            origin="lower",
            aspect="auto",
            interpolation="nearest",
            extent=(0, steps, LOWEST - 0.5, LOWEST + keys - 0.5),
        )
        axes.set_yticks(cs, [f"C{note // OCTAVE - 1}" for note in cs])
        axes.grid(axis="y", alpha=0.3)
    axes.set_xlabel("step")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="png", dpi=100)
    except OSError as error:
        raise BadInput(f"{path}: cannot be written: {error.strerror}") from error
