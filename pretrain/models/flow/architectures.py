"""Which bijections a flow is made of; each is named after the paper that composed it so.

Shape legend: a row's shape is (D,), or (C, H, W) for what works on images.
"""

import abc
import math
from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from data_pipeline.config import BadInput, Config
from pretrain.bijections.actnorm import ActNorm
from pretrain.bijections.autoregressive import MaskedAutoregressive
from pretrain.bijections.bijection import Bijection, Composition, Inverse, Reverse
from pretrain.bijections.conditioners import convolutional, perceptron
from pretrain.bijections.coupling import (
    AdditiveCoupling,
    AffineCoupling,
    alternating,
    channel_halves,
    checkerboard,
    halves,
)
from pretrain.bijections.invertible_convolution import InvertibleConvolution
from pretrain.bijections.multiscale import Multiscale, Shape, Squeeze
from pretrain.bijections.planar import Planar

HiddenWidths = Annotated[tuple[PositiveInt, ...], Field(min_length=1)]


class Architecture(Config, abc.ABC):
    """Builds a bijection of flattened rows, [R, D] -> [R, D]."""

    kind: str

    @abc.abstractmethod
    def build(self, shape: tuple[int, ...]) -> Bijection:
        """Of rows of this shape; BadInput where it cannot be."""


class PlanarConfig(Architecture):
    """Planar flows from data to noise (Rezende & Mohamed 2015)."""

    kind: Literal["planar"]
    num_layers: int = Field(gt=0)

    def build(self, shape: tuple[int, ...]) -> Bijection:
        return Composition(Planar(math.prod(shape)) for _ in range(self.num_layers))


class NICEConfig(Architecture):
    """Additive couplings of even and odd values in turn, then a scale (and shift) of each (Dinh et al. 2015)."""

    kind: Literal["nice"]
    num_layers: int = Field(gt=1)
    hidden_widths: HiddenWidths

    def build(self, shape: tuple[int, ...]) -> Bijection:
        values = at_least_two(math.prod(shape))
        couplings = (
            AdditiveCoupling(alternating(values, number % 2), perceptron([values, *self.hidden_widths, values]))
            for number in range(self.num_layers)
        )
        return Composition([*couplings, ActNorm(values)])


class RealNVPVectorsConfig(Architecture):
    """Affine couplings of the halves of a vector in turn, with an ActNorm after each (Dinh et al. 2017)."""

    kind: Literal["realnvp"]
    num_layers: int = Field(gt=1)
    hidden_widths: HiddenWidths

    def build(self, shape: tuple[int, ...]) -> Bijection:
        values = at_least_two(math.prod(shape))
        widths = [values, *self.hidden_widths, 2 * values]
        parts: list[Bijection] = []
        for number in range(self.num_layers):
            parts += [AffineCoupling(halves(values, number % 2), perceptron(widths)), ActNorm(values)]
        return Composition(parts)


class RealNVPImagesConfig(Architecture):
    """Couplings by checkerboard and by channels at several scales (Dinh et al. 2017, section 3.6).

    Each scale but the last: three by checkerboard, a squeeze, three by channels, half of the channels done; the last:
    four by checkerboard. An ActNorm after each stands where the paper has batch normalization.
    """

    kind: Literal["realnvp_images"]
    num_scales: int = Field(gt=0)
    hidden_channels: int = Field(gt=0)

    def build(self, shape: tuple[int, ...]) -> Bijection:
        image = image_of(shape, self.kind, self.num_scales - 1)
        self._check_checkerboards(image)
        stages, shapes, now = [], [], image
        for scale in range(self.num_scales):
            parts: list[Bijection] = []
            last = scale + 1 == self.num_scales
            for number in range(4 if last else 3):
                parts += self._coupling(now, by="checkerboard", parity=number % 2)
            if not last:
                now = squeezed(now)
                parts.append(Squeeze())
                for number in range(3):
                    parts += self._coupling(now, by="channels", parity=number % 2)
            stages.append(Composition(parts))
            shapes.append(now)
            now = (now[0] // 2, *now[1:])
        return Multiscale(image, stages, shapes)

    def _check_checkerboards(self, image: Shape) -> None:
        """BadInput where the last scale has one pixel, which is of one colour."""
        sides = [(image[1] >> scale, image[2] >> scale) for scale in range(self.num_scales)]
        fit = sum(max(height, width) > 1 for height, width in sides)
        if fit < self.num_scales:
            raise BadInput(
                f"model.bijections.num_scales is {self.num_scales}: it leaves one pixel of images of "
                f"{image[1]} x {image[2]}, too few for couplings by checkerboard; "
                + (f"choose at most {fit}" if fit else "choose bijections of kind realnvp")
            )

    def _coupling(self, shape: Shape, *, by: Literal["checkerboard", "channels"], parity: int) -> list[Bijection]:
        mask = checkerboard(*shape, parity) if by == "checkerboard" else channel_halves(*shape, parity)
        channels = shape[0]
        return [AffineCoupling(mask, convolutional(channels, self.hidden_channels, 2 * channels)), ActNorm(channels)]


class GlowConfig(Architecture):
    """At each scale a squeeze, then steps of ActNorm, invertible convolution and coupling (Kingma & Dhariwal 2018)."""

    kind: Literal["glow"]
    num_scales: int = Field(gt=0)
    """The paper's L."""
    num_steps: int = Field(gt=0)
    """The paper's K."""
    hidden_channels: int = Field(gt=0)

    def build(self, shape: tuple[int, ...]) -> Bijection:
        image = image_of(shape, self.kind, self.num_scales)
        stages, shapes, now = [], [], image
        for _ in range(self.num_scales):
            now = squeezed(now)
            parts: list[Bijection] = [Squeeze()]
            for _ in range(self.num_steps):
                network = convolutional(now[0], self.hidden_channels, 2 * now[0])
                coupling = AffineCoupling(channel_halves(*now, 0), network)
                parts += [ActNorm(now[0]), InvertibleConvolution(now[0]), coupling]
            stages.append(Composition(parts))
            shapes.append(now)
            now = (now[0] // 2, *now[1:])
        return Multiscale(image, stages, shapes)


class MAFConfig(Architecture):
    """Masked autoregressive layers, the order reversed and an ActNorm after each (Papamakarios et al. 2017)."""

    kind: Literal["maf"]
    num_layers: int = Field(gt=0)
    hidden_widths: HiddenWidths

    def build(self, shape: tuple[int, ...]) -> Bijection:
        values = at_least_two(math.prod(shape))
        parts: list[Bijection] = []
        for _ in range(self.num_layers):
            parts += [MaskedAutoregressive(values, self.hidden_widths), ActNorm(values), Reverse()]
        return Composition(parts)


class IAFConfig(Architecture):
    """The inverse of masked autoregressive layers: cheap samples, densities at a pass for each dimension."""

    kind: Literal["iaf"]
    num_layers: int = Field(gt=0)
    hidden_widths: HiddenWidths

    def build(self, shape: tuple[int, ...]) -> Bijection:
        values = at_least_two(math.prod(shape))
        parts: list[Bijection] = []
        for _ in range(self.num_layers):
            parts += [Inverse(MaskedAutoregressive(values, self.hidden_widths)), ActNorm(values), Reverse()]
        return Composition(parts)


ArchitectureConfig = Annotated[
    PlanarConfig | NICEConfig | RealNVPVectorsConfig | RealNVPImagesConfig | GlowConfig | MAFConfig | IAFConfig,
    Field(discriminator="kind"),
]


def at_least_two(values: int) -> int:
    """BadInput for a row of one value, of which no part can say how the other is transformed."""
    if values < 2:
        raise BadInput(f"model.row_shape has {values} value: must have at least 2; choose bijections of kind planar")
    return values


def image_of(shape: tuple[int, ...], kind: str, squeezes: int) -> Shape:
    """BadInput where a row is no image that can be halved so many times."""
    if len(shape) != 3:
        raise BadInput(
            f"model.row_shape is {list(shape)}: bijections of kind {kind} need channels, height and width; give three "
            "numbers, or choose realnvp, nice or maf"
        )
    channels, height, width = shape
    if height % 2**squeezes or width % 2**squeezes:
        raise BadInput(
            f"model.row_shape is {list(shape)}: height and width must be multiples of {2**squeezes}, since bijections "
            f"of kind {kind} halve them {squeezes} times here; choose fewer num_scales"
        )
    return channels, height, width


def squeezed(shape: Shape) -> Shape:
    return 4 * shape[0], shape[1] // 2, shape[2] // 2
