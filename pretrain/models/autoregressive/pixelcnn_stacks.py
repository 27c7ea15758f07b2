"""The layers of PixelCNNs, over a whole image or, when one is drawn, pixel by pixel from what they kept.

Masked (van den Oord et al. 2016a, https://arxiv.org/abs/1601.06759, figure 5 and table 1): a first convolution with
mask A, then residual blocks h + 1x1(relu(kernel(relu(1x1(relu(h)))))) with mask B and half the features within. What
is to the right above a pixel, further than a kernel climbs, is never seen: the blind spot.

Gated (van den Oord et al. 2016b, https://arxiv.org/abs/1606.05328, equation 2 and figure 2): a vertical stack of the
rows above and a horizontal one of the pixels before in the row, each layer

    tanh(W_f * x + V_f y) . sigmoid(W_g * x + V_g y),

where y is the class; the vertical convolution is added to the horizontal one before its gate (a link), and the
horizontal layers but the first are residual.

Shape legend: R rows, C channels of the image, F features, G = 2 F before a gate, H height, W width.
"""

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pretrain.layers.masked_convolution import ConvolutionCache, MaskedConvolution, Own, groups_of


class Sizes(Protocol):
    """What stacks read of a configuration."""

    @property
    def height(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def features(self) -> int: ...
    @property
    def num_layers(self) -> int: ...
    @property
    def first_kernel(self) -> int: ...
    @property
    def kernel(self) -> int: ...
    @property
    def position_bias(self) -> bool: ...
    @property
    def classes(self) -> int | None: ...


class PositionBias(nn.Module):
    """Features of each place; nothing at first."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.bias_FHW = nn.Parameter(torch.zeros(sizes.features, sizes.height, sizes.width))

    def forward(self, cache: ConvolutionCache | None) -> Tensor:
        """[F, H, W], of the whole image or of the region."""
        if cache is None:
            return self.bias_FHW
        return self.bias_FHW[:, cache.top : cache.bottom, cache.left : cache.right]


def class_table(classes: int | None, width: int) -> nn.Embedding | None:
    """A vector for each class, small at first."""
    if classes is None:
        return None
    table = nn.Embedding(classes, width)
    nn.init.normal_(table.weight, std=0.01)
    return table


def told(x_RFHW: Tensor, table: nn.Embedding | None, labels_R: Tensor | None) -> Tensor:
    """With the vector of each row's class added."""
    return x_RFHW if table is None else x_RFHW + table(labels_R)[:, :, None, None]


class ResidualBlock(nn.Module):
    """h + 1x1(relu(kernel(relu(1x1(relu(h))))))."""

    def __init__(self, sizes: Sizes, num_groups: int) -> None:
        super().__init__()
        wide, narrow = groups_of(sizes.features, num_groups), groups_of(sizes.features // 2, num_groups)
        half = sizes.kernel // 2
        self.narrow = MaskedConvolution(wide, narrow, own="with")
        self.middle = MaskedConvolution(narrow, narrow, own="with", above=half, behind=half, ahead=half)
        self.widen = MaskedConvolution(narrow, wide, own="with")

    def forward(self, h_RFHW: Tensor, cache: ConvolutionCache | None) -> Tensor:
        narrow = self.narrow(F.relu(h_RFHW))
        return h_RFHW + self.widen(F.relu(self.middle(F.relu(narrow), cache)))


class MaskedStack(nn.Module):
    """One stack, with its blind spot."""

    def __init__(self, sizes: Sizes, groups_C: Tensor, num_groups: int) -> None:
        super().__init__()
        half = sizes.first_kernel // 2
        hidden = groups_of(sizes.features, num_groups)
        self.first = MaskedConvolution(groups_C, hidden, own="before", above=half, behind=half, ahead=half)
        self.blocks = nn.ModuleList(ResidualBlock(sizes, num_groups) for _ in range(sizes.num_layers))
        self.position = PositionBias(sizes) if sizes.position_bias else None
        self.classes = class_table(sizes.classes, sizes.features)

    def forward(self, x_RCHW: Tensor, labels_R: Tensor | None, cache: ConvolutionCache | None = None) -> Tensor:
        """[R, F, H, W]."""
        h_RFHW = told(self.first(x_RCHW, cache), self.classes, labels_R)
        if self.position is not None:
            h_RFHW = h_RFHW + self.position(cache)
        for block in self.blocks:
            h_RFHW = block(h_RFHW, cache)
        return h_RFHW

    def begin_row(self, x_RC1W: Tensor, labels_R: Tensor | None, cache: ConvolutionCache) -> list[Tensor]:
        """Nothing to do."""
        return []

    def at_pixel(self, x_RC11: Tensor, links: list[Tensor], labels_R: Tensor | None, cache: ConvolutionCache) -> Tensor:
        """[R, F, 1, 1] at the cache's pixel."""
        return self(x_RC11, labels_R, cache)

    def keep(self, x_RC11: Tensor, cache: ConvolutionCache) -> None:
        """What the pixel is, once it is known."""
        cache.put(self.first, x_RC11)


def gate(x_RGHW: Tensor) -> Tensor:
    """[R, F, H, W] tanh of the first half times sigmoid of the other (equation 2)."""
    signal, opening = x_RGHW.chunk(2, dim=1)
    return signal.tanh() * opening.sigmoid()


class GatedLayer(nn.Module):
    """One layer of both stacks."""

    def __init__(self, sizes: Sizes, groups_I: Tensor, num_groups: int, *, first: bool) -> None:
        super().__init__()
        hidden, half = groups_of(sizes.features, num_groups), (sizes.first_kernel if first else sizes.kernel) // 2
        both, none_I = torch.cat([hidden, hidden]), torch.zeros_like(groups_I)
        own_row: Own = "nothing" if first else "all"
        own_pixel: Own = "before" if first else "with"
        self.vertical = MaskedConvolution(none_I, both, own=own_row, above=half, behind=half, ahead=half)
        self.horizontal = MaskedConvolution(groups_I, both, own=own_pixel, behind=half)
        self.link = MaskedConvolution(both, both, own="all")
        self.out = MaskedConvolution(hidden, hidden, own="with")
        self.residual = not first
        self.vertical_class = class_table(sizes.classes, 2 * sizes.features)
        self.horizontal_class = class_table(sizes.classes, 2 * sizes.features)

    def down(self, v_RIHW: Tensor, labels_R: Tensor | None, cache: ConvolutionCache | None) -> tuple[Tensor, Tensor]:
        """[R, F, H, W] the vertical stack's next, and [R, G, H, W] the link to the horizontal one."""
        v_RGHW = told(self.vertical(v_RIHW, cache), self.vertical_class, labels_R)
        return gate(v_RGHW), self.link(v_RGHW)

    def across(
        self, h_RIHW: Tensor, link_RGHW: Tensor, labels_R: Tensor | None, cache: ConvolutionCache | None
    ) -> Tensor:
        """[R, F, H, W] the horizontal stack's next."""
        h_RGHW = told(self.horizontal(h_RIHW, cache) + link_RGHW, self.horizontal_class, labels_R)
        out_RFHW = self.out(gate(h_RGHW))
        return h_RIHW + out_RFHW if self.residual else out_RFHW


class GatedStacks(nn.Module):
    """The vertical and the horizontal stack; together they see every earlier pixel."""

    def __init__(self, sizes: Sizes, groups_C: Tensor, num_groups: int) -> None:
        super().__init__()
        hidden = groups_of(sizes.features, num_groups)
        later = (GatedLayer(sizes, hidden, num_groups, first=False) for _ in range(sizes.num_layers))
        self.layers = nn.ModuleList([GatedLayer(sizes, groups_C, num_groups, first=True), *later])
        self.position = PositionBias(sizes) if sizes.position_bias else None

    def forward(self, x_RCHW: Tensor, labels_R: Tensor | None) -> Tensor:
        """[R, F, H, W] of the horizontal stack."""
        return self._across(x_RCHW, self._down(x_RCHW, labels_R, None), labels_R, None)

    def _down(self, v: Tensor, labels_R: Tensor | None, cache: ConvolutionCache | None) -> list[Tensor]:
        """The links of all layers."""
        links = []
        for number, layer in enumerate(self.layers):
            assert isinstance(layer, GatedLayer)
            v, link_RGHW = layer.down(v, labels_R, cache)
            if number == 0 and self.position is not None:
                v = v + self.position(cache)
            links.append(link_RGHW)
        return links

    def _across(
        self, h: Tensor, links: list[Tensor], labels_R: Tensor | None, cache: ConvolutionCache | None
    ) -> Tensor:
        for number, (layer, link_RGHW) in enumerate(zip(self.layers, links, strict=True)):
            assert isinstance(layer, GatedLayer)
            h = layer.across(h, link_RGHW, labels_R, cache)
            if number == 0 and self.position is not None:
                h = h + self.position(cache)
        return h

    def begin_row(self, x_RC1W: Tensor, labels_R: Tensor | None, cache: ConvolutionCache) -> list[Tensor]:
        """The row's links: what the rows above say."""
        return self._down(x_RC1W, labels_R, cache)

    def at_pixel(self, x_RC11: Tensor, links: list[Tensor], labels_R: Tensor | None, cache: ConvolutionCache) -> Tensor:
        """[R, F, 1, 1] at the cache's pixel."""
        here = [link_RG1W[:, :, :, cache.left : cache.right] for link_RG1W in links]
        return self._across(x_RC11, here, labels_R, cache)

    def keep(self, x_RC11: Tensor, cache: ConvolutionCache) -> None:
        """What the pixel is, once it is known."""
        first = self.layers[0]
        assert isinstance(first, GatedLayer)
        cache.put(first.vertical, x_RC11)
        cache.put(first.horizontal, x_RC11)
