"""A batch of vectors as a model reads it, as a picture: images, waves or piano rolls, by the kind of data."""

from pathlib import Path

from torch import Tensor

from data_pipeline.config import BadInput
from data_pipeline.media.music_data import MusicConfig
from data_pipeline.vector_data import VectorData
from evals.pictures.images import grid_of, images_of, write_png
from evals.pictures.piano_rolls import write_piano_rolls
from evals.pictures.waves import write_spectrograms

MOST_PIXELS = 1 << 24
"""Of a grid; each image's pixels are drawn as large as they fit in it."""
MOST_WAVES = 8
MOST_ROLLS = 8


def write_batch(path: Path, data: VectorData, values_RD: Tensor) -> None:
    """A grid of all images, or spectrograms or rolls of the first few rows. Music of single steps is one roll, its rows
    one after the other. BadInput where there is no picture of such rows, or it cannot be written."""
    if isinstance(data, MusicConfig):
        _, steps, keys = data.shape
        rolls_NTK = values_RD.reshape(1, -1, keys) if steps == 1 else values_RD.reshape(-1, steps, keys)
        write_piano_rolls(path, rolls_NTK[:MOST_ROLLS])
    elif len(data.shape) == 3:
        scale = int((MOST_PIXELS / max(1, values_RD.numel())) ** 0.5)
        write_png(path, grid_of(images_of(values_RD, data.shape), scale=min(8, max(1, scale))))
    elif data.sample_rate is not None:
        waves_RT = values_RD if data.values == "real" else 2 * values_RD - 1  # silence of levels is at a half
        write_spectrograms(path, waves_RT[:MOST_WAVES], data.sample_rate)
    else:
        raise BadInput(f"data.kind {data.kind}: there is no picture of rows of shape {list(data.shape)}")
