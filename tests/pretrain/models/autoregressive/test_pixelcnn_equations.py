"""Both stacks of a PixelCNN against their equations, pixel by pixel, with nothing of the model's but its weights.

Gated: van den Oord et al. 2016b (https://arxiv.org/abs/1606.05328), equation 2 and figure 2. Masked: van den Oord et
al. 2016a (https://arxiv.org/abs/1601.06759), figure 5, left. Kernels of 3 over 3 x 4 pixels of one channel.

Shape legend: O features out, I in, K rows and L columns of a kernel, F features, G = 2 F, P parameters of a pixel.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pretrain.layers.masked_convolution import MaskedConvolution
from pretrain.models.autoregressive import pixelcnn_stacks
from pretrain.models.autoregressive.pixelcnn import PixelCNN, PixelCNNConfig
from pretrain.models.autoregressive.pixelcnn_stacks import GatedStacks, ResidualBlock

HEIGHT, WIDTH, FEATURES, LABEL = 3, 4, 4, 1
PIXELS = [(row, column) for row in range(HEIGHT) for column in range(WIDTH)]
Map = dict[tuple[int, int], Tensor]
"""Features of each pixel."""
ABOVE = [(-1, -1), (-1, 0), (-1, 1)]
"""Row and column from the pixel's own."""


def build(gated: bool, randomised: Callable[..., PixelCNN]) -> PixelCNN:
    config = PixelCNNConfig(
        kind="pixelcnn", height=HEIGHT, width=WIDTH, gated=gated, features=FEATURES, num_layers=1, first_kernel=3,
        kernel=3, output_features=6, position_bias=True, classes=2,
    )  # fmt: skip
    return randomised(config.build())


def convolved(layer: MaskedConvolution, x: Map, reads: list[tuple[int, int]], rows_above: int, behind: int) -> Map:
    """b + the sum over what is read, by its place from the pixel, of W x; nothing outside of the image."""
    out = {}
    for row, column in PIXELS:
        total_O = layer.bias_O
        for down, right in reads:
            if (row + down, column + right) in x:
                weight_OI = layer.weight_OIKL[:, :, down + rows_above, right + behind]
                total_O = total_O + weight_OI @ x[row + down, column + right]
        out[row, column] = total_O
    return out


def one_by_one(layer: MaskedConvolution, x: Map) -> Map:
    return convolved(layer, x, [(0, 0)], 0, 0)


def rectified(x: Map) -> Map:
    return {pixel: x_F.clamp(min=0) for pixel, x_F in x.items()}


def added(x: Map, y: Map) -> Map:
    return {pixel: x[pixel] + y[pixel] for pixel in PIXELS}


def told(x: Map, vector_F: Tensor) -> Map:
    return {pixel: x_F + vector_F for pixel, x_F in x.items()}


def gated(x: Map) -> Map:
    return {pixel: torch.tanh(x_G[:FEATURES]) / (1 + torch.exp(-x_G[FEATURES:])) for pixel, x_G in x.items()}


def places(model: PixelCNN) -> Map:
    assert model.stacks.position is not None
    return {(row, column): model.stacks.position.bias_FHW[:, row, column] for row, column in PIXELS}


def head(model: PixelCNN, h: Map) -> Map:
    return one_by_one(model.output, rectified(one_by_one(model.before_output, rectified(h))))


def by_hand_gated(model: PixelCNN, x: Map) -> Map:
    """Figure 2: left the vertical stack, right the horizontal one; the first layer reads no pixel of its own place."""
    first, second = model.stacks.layers
    v = told(convolved(first.vertical, x, ABOVE, 1, 1), first.vertical_class.weight[LABEL])
    h = told(convolved(first.horizontal, x, [(0, -1)], 0, 1), first.horizontal_class.weight[LABEL])
    h = one_by_one(first.out, gated(added(h, one_by_one(first.link, v))))
    v, h = added(gated(v), places(model)), added(h, places(model))
    own_row = [(0, -1), (0, 0), (0, 1)]
    v = told(convolved(second.vertical, v, ABOVE + own_row, 1, 1), second.vertical_class.weight[LABEL])
    across = told(convolved(second.horizontal, h, own_row[:2], 0, 1), second.horizontal_class.weight[LABEL])
    across = one_by_one(second.out, gated(added(across, one_by_one(second.link, v))))
    return head(model, added(h, across))


def by_hand_masked(model: PixelCNN, x: Map) -> Map:
    """Figure 5: h + 1x1(relu(3x3(relu(1x1(relu(h)))))), after a first layer that reads no pixel of its own place."""
    (block,) = model.stacks.blocks
    h = told(convolved(model.stacks.first, x, [*ABOVE, (0, -1)], 1, 1), model.stacks.classes.weight[LABEL])
    h = added(h, places(model))
    narrow = rectified(one_by_one(block.narrow, rectified(h)))
    middle = rectified(convolved(block.middle, narrow, [*ABOVE, (0, -1), (0, 0)], 1, 1))
    return head(model, added(h, one_by_one(block.widen, middle)))


def error(model: PixelCNN, x_HW: Tensor, wanted: Map) -> float:
    found_PHW = model.parameters_of(x_HW[None, None], torch.tensor([LABEL]))[0]
    return max(float((found_PHW[:, row, column] - wanted[row, column]).abs().max()) for row, column in PIXELS)


Plant = Callable[[PixelCNN, pytest.MonkeyPatch], object]


def no_position_in(stack: str) -> Plant:
    """In one of the two gated stacks only."""

    def plant(model: PixelCNN, monkeypatch: pytest.MonkeyPatch) -> None:
        right = getattr(GatedStacks, stack)

        def without(self: GatedStacks, *arguments: Any) -> Any:
            kept, self.position = self.position, None
            found = right(self, *arguments)
            self.position = kept
            return found

        monkeypatch.setattr(GatedStacks, stack, without)

    return plant


def no_first_rectifier(model: PixelCNN, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PixelCNN, "_head", lambda self, h: self.output(F.relu(self.before_output(h))))


def gates_added(model: PixelCNN, monkeypatch: pytest.MonkeyPatch) -> None:
    def add(x_RGHW: Tensor) -> Tensor:
        return x_RGHW[:, :FEATURES].tanh() + x_RGHW[:, FEATURES:].sigmoid()

    monkeypatch.setattr(pixelcnn_stacks, "gate", add)


def no_residual(model: PixelCNN, monkeypatch: pytest.MonkeyPatch) -> None:
    right = ResidualBlock.forward
    monkeypatch.setattr(ResidualBlock, "forward", lambda self, h, cache: right(self, h, cache) - h)


GATED_MUTANTS: dict[str, Plant] = {
    "tanh plus sigmoid": gates_added,
    "no residual": lambda model, _: setattr(model.stacks.layers[1], "residual", False),
    "residual in the first layer": lambda model, _: setattr(model.stacks.layers[0], "residual", True),
    "first vertical class": lambda model, _: setattr(model.stacks.layers[0], "vertical_class", None),
    "second vertical class": lambda model, _: setattr(model.stacks.layers[1], "vertical_class", None),
    "first horizontal class": lambda model, _: setattr(model.stacks.layers[0], "horizontal_class", None),
    "second horizontal class": lambda model, _: setattr(model.stacks.layers[1], "horizontal_class", None),
    "vertical position": no_position_in("_down"),
    "horizontal position": no_position_in("_across"),
    "first rectifier of the head": no_first_rectifier,
}
MASKED_MUTANTS: dict[str, Plant] = {
    "no residual": no_residual,
    "class": lambda model, _: setattr(model.stacks, "classes", None),
    "position": lambda model, _: setattr(model.stacks, "position", None),
    "first rectifier of the head": no_first_rectifier,
}


@torch.no_grad()
def check(model: PixelCNN, by_hand: Callable[[PixelCNN, Map], Map], plant: Plant) -> None:
    x_HW = torch.randn(HEIGHT, WIDTH, dtype=torch.float64)
    wanted = by_hand(model, {(row, column): x_HW[row, column][None] for row, column in PIXELS})
    assert error(model, x_HW, wanted) < 1e-9
    with pytest.MonkeyPatch.context() as patch:
        plant(model, patch)
        assert error(model, x_HW, wanted) > 1e-6


@pytest.mark.parametrize("mutant", GATED_MUTANTS)
def test_gated_stacks_are_the_paper_s(mutant: str, randomised: Any) -> None:
    check(build(True, randomised), by_hand_gated, GATED_MUTANTS[mutant])


@pytest.mark.parametrize("mutant", MASKED_MUTANTS)
def test_a_masked_stack_is_the_paper_s(mutant: str, randomised: Any) -> None:
    check(build(False, randomised), by_hand_masked, MASKED_MUTANTS[mutant])
