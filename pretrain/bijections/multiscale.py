"""Squeezing, and factoring out half of the channels at each scale.

Dinh et al. 2017 (RealNVP, https://arxiv.org/abs/1605.08803, section 3.6): a squeeze turns each 2 x 2 square of pixels
into four channels; after each stage but the last, half of the channels are done.

Shape legend: R rows, D values of a row, C channels, H height, W width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pretrain.bijections.bijection import Bijection

Shape = tuple[int, int, int]
"""Channels, height, width."""


class Squeeze(Bijection):
    """[R, C, H, W] -> [R, 4 C, H / 2, W / 2]."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return F.pixel_unshuffle(x, 2), x.new_zeros(len(x))

    def inverse(self, z: Tensor) -> Tensor:
        return F.pixel_shuffle(z, 2)


class Multiscale(Bijection):
    """[R, D] -> [R, D], through stages that are of images; what is done earliest comes first."""

    def __init__(self, shape: Shape, stages: Sequence[Bijection], shapes: Sequence[Shape]) -> None:
        """`shape` of the image, `shapes` of what each stage makes of its input."""
        super().__init__()
        assert len(stages) == len(shapes)
        self.shape, self.shapes = shape, shapes
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x_RCHW = x.reshape(len(x), *self.shape)
        done: list[Tensor] = []
        log_det_R = x.new_zeros(len(x))
        for stage in self.stages:
            x_RCHW, stage_R = stage(x_RCHW)
            log_det_R = log_det_R + stage_R
            if len(done) + 1 < len(self.stages):
                x_RCHW, z_RCHW = x_RCHW.chunk(2, dim=1)
                done.append(z_RCHW.flatten(1))
        return torch.cat([*done, x_RCHW.flatten(1)], dim=1), log_det_R

    def inverse(self, z: Tensor) -> Tensor:
        parts = [
            z_RD.reshape(len(z), *shape) for z_RD, shape in zip(z.split(self._sizes(), 1), self._parts(), strict=True)
        ]
        x_RCHW = parts.pop()
        for stage in reversed(self.stages):
            assert isinstance(stage, Bijection)
            x_RCHW = stage.inverse(x_RCHW)
            if parts:
                x_RCHW = torch.cat([x_RCHW, parts.pop()], dim=1)
        return x_RCHW.flatten(1)

    def _parts(self) -> list[Shape]:
        """The shape of what each stage leaves behind."""
        return [*((c // 2, h, w) for c, h, w in self.shapes[:-1]), self.shapes[-1]]

    def _sizes(self) -> list[int]:
        return [c * h * w for c, h, w in self._parts()]
