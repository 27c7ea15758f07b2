"""Convolutions over an image that see only what comes earlier, row by row, and how they are computed piece by piece.

van den Oord et al. 2016a (PixelRNN and PixelCNN, https://arxiv.org/abs/1601.06759, section 3.4). A kernel has rows
above and the pixel's own row; in the own row it ends at the pixel itself, where channels are in groups (one for each
channel of the image) and a group sees

    first layer (mask A):  the groups before it,        later layers (mask B):  those and itself

When an image is drawn, a layer's input at a pixel is final once it was computed, so that each pixel needs one column of
each layer: a cache holds the padded inputs, and a layer computes the region that it is told to.

Shape legend: R rows of a batch, I channels in, O channels out, H height, W width, K rows and L columns of a kernel.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Own = Literal["nothing", "before", "with", "all"]
"""What a kernel sees of its own row: nothing; the pixels before and the groups before in the pixel; those groups with
its own; all of the row."""


class ConvolutionCache:
    """The inputs so far of layers that compute an image region by region."""

    def __init__(self, height: int, width: int) -> None:
        self.height, self.width = height, width
        self.top, self.bottom, self.left, self.right = 0, height, 0, width
        self._inputs: dict[MaskedConvolution, Tensor] = {}

    def at(self, top: int, left: int, width: int) -> "ConvolutionCache":
        """Itself, told to compute so much of a row from there on."""
        self.top, self.bottom, self.left, self.right = top, top + 1, left, left + width
        return self

    def put(self, layer: "MaskedConvolution", x_RIHW: Tensor) -> None:
        """The region's input of a layer."""
        above, behind, ahead = layer.padding
        if layer not in self._inputs:
            shape = (*x_RIHW.shape[:2], self.height + above, self.width + behind + ahead)
            self._inputs[layer] = x_RIHW.new_zeros(shape)
        rows, columns = slice(self.top + above, self.bottom + above), slice(self.left + behind, self.right + behind)
        self._inputs[layer][:, :, rows, columns] = x_RIHW

    def seen(self, layer: "MaskedConvolution") -> Tensor:
        """[R, I, H + K - 1, W + L - 1] what the layer's kernel reads to compute the region."""
        above, behind, ahead = layer.padding
        rows, columns = slice(self.top, self.bottom + above), slice(self.left, self.right + behind + ahead)
        return self._inputs[layer][:, :, rows, columns]


class MaskedConvolution(nn.Module):
    """A convolution over `above` rows above and the own row, `behind` columns to the left and `ahead` to the right."""

    mask_OIKL: Tensor

    def __init__(
        self,
        groups_I: Tensor,
        groups_O: Tensor,
        *,
        own: Own,
        above: int = 0,
        behind: int = 0,
        ahead: int = 0,
        bias: bool = True,
    ) -> None:
        """Channels in and out by the group of each."""
        super().__init__()
        self.padding = (above, behind, ahead)
        mask_OIKL = causal_mask(groups_I, groups_O, self.padding, own)
        self.weight_OIKL = nn.Parameter(torch.empty(mask_OIKL.shape))
        self.bias_O = nn.Parameter(torch.zeros(len(groups_O))) if bias else None
        self.register_buffer("mask_OIKL", mask_OIKL, persistent=False)
        reads = len(groups_I) * (above * (behind + 1 + ahead) + (0 if own == "nothing" else behind + 1))
        nn.init.normal_(self.weight_OIKL, std=reads**-0.5)

    def forward(self, x_RIHW: Tensor, cache: ConvolutionCache | None = None) -> Tensor:
        """[R, O, H, W], of the whole image, or of the cache's region, whose input is kept."""
        if cache is None:
            above, behind, ahead = self.padding
            padded = F.pad(x_RIHW, (behind, ahead, above, 0))
        else:
            cache.put(self, x_RIHW)
            padded = cache.seen(self)
        return F.conv2d(padded, self.weight_OIKL * self.mask_OIKL, self.bias_O)


def causal_mask(groups_I: Tensor, groups_O: Tensor, padding: tuple[int, int, int], own: Own) -> Tensor:
    """[O, I, K, L] bool."""
    above, behind, ahead = padding
    mask_OIKL = torch.ones(len(groups_O), len(groups_I), above + 1, behind + 1 + ahead, dtype=torch.bool)
    if own == "nothing":
        mask_OIKL[:, :, above] = False
    elif own != "all":
        mask_OIKL[:, :, above, behind + 1 :] = False
        before_OI = groups_O[:, None] > groups_I if own == "before" else groups_O[:, None] >= groups_I
        mask_OIKL[:, :, above, behind] = before_OI
    return mask_OIKL


def groups_of(channels: int, num_groups: int) -> Tensor:
    """[channels] the group of each hidden channel: equal shares, in order."""
    return torch.arange(channels) * num_groups // channels
