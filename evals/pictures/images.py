"""Images side by side.

Shape legend: N images, C channels (1 or 3), H rows and W columns of pixels.
"""

import math
from pathlib import Path

import torch
from torch import Tensor

from data_pipeline.config import BadInput

WHITE = 1.0


def grid_of(images_NCHW: Tensor, *, columns: int | None = None, scale: int = 8) -> Tensor:
    """[height, width, C] in [0, 1] with white lines between the images, each pixel `scale` wide; nearly a square where
    no number of columns is given."""
    count, channels, height, width = images_NCHW.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    grid = torch.full((rows * (height + 1) + 1, columns * (width + 1) + 1, channels), WHITE)
    for index, image_CHW in enumerate(images_NCHW):
        row, column = divmod(index, columns)
        top, left = row * (height + 1) + 1, column * (width + 1) + 1
        grid[top : top + height, left : left + width] = image_CHW.permute(1, 2, 0)
    return grid.clamp(0.0, 1.0).repeat_interleave(scale, 0).repeat_interleave(scale, 1)


def images_of(values_ND: Tensor, shape: tuple[int, ...]) -> Tensor:
    """[N, C, H, W] of flattened rows; BadInput where `shape` is none of grey or coloured images."""
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise BadInput(f"rows of shape {list(shape)} are no images of one channel or three")
    return values_ND.reshape(-1, *shape)


def write_png(path: Path, grid_HWC: Tensor) -> None:
    """BadInput where it cannot be written."""
    from matplotlib.image import imsave

    pixels = grid_HWC[..., 0] if grid_HWC.shape[-1] == 1 else grid_HWC
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        imsave(path, pixels.numpy(), format="png", cmap="gray", vmin=0.0, vmax=1.0)
    except OSError as error:
        raise BadInput(f"{path}: cannot be written: {error.strerror}") from error
