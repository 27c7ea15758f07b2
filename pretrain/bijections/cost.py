"""What a pass costs.

Shape legend: C channels, H height, W width, D values of a row.
"""

from pretrain.bijections.autoregressive import MaskedAutoregressive
from pretrain.bijections.bijection import Bijection, Composition, Inverse
from pretrain.bijections.invertible_convolution import InvertibleConvolution
from pretrain.bijections.multiscale import Multiscale, Squeeze
from pretrain.bijections.planar import Planar


def flops_per_row(bijection: Bijection, places: int = 1) -> float:
    """Floating-point operations of one row forward, matrix products only, with `places` pixels in an image.

    Every weight is used once at each pixel, and in an inverted autoregressive layer once for each dimension more.
    """
    if isinstance(bijection, Multiscale):
        inputs = [bijection.shape, *bijection.shapes]
        return sum(_of(stage, h * w) for stage, (_, h, w) in zip(bijection.stages, inputs, strict=False))
    if isinstance(bijection, Composition):
        total = 0.0
        for part in bijection.parts:
            total += _of(part, places)
            places //= 4 if isinstance(part, Squeeze) else 1
        return total
    if isinstance(bijection, Inverse):
        inner = bijection.inner
        passes = inner.num_values + 1 if isinstance(inner, MaskedAutoregressive) else 1
        return passes * flops_per_row(inner, places)
    if isinstance(bijection, InvertibleConvolution):
        return 2.0 * places * bijection.lower_CC.numel()
    if isinstance(bijection, Planar):
        return 2.0 * bijection.w_D.numel()
    return 2.0 * places * sum(p.numel() for p in bijection.parameters() if p.dim() >= 2)


def _of(part: object, places: int) -> float:
    assert isinstance(part, Bijection)
    return flops_per_row(part, places)
