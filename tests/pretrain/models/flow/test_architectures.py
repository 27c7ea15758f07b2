"""What each architecture is composed of: its bijections by kind and number, and that no value of a row is left out.

Shape legend: R rows, D values of a row.
"""

import math
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor

from pretrain.bijections.bijection import Bijection, Composition
from pretrain.bijections.coupling import AffineCoupling
from pretrain.bijections.multiscale import Multiscale
from pretrain.models.flow.architectures import ArchitectureConfig
from tests.pretrain.bijections.identities import jacobians, random_weights

WIDTHS: dict[str, Any] = {"hidden_widths": [30]}
VECTORS: dict[str, dict[str, Any]] = {
    "planar": {"num_layers": 3},
    "nice": {"num_layers": 3, **WIDTHS},
    "realnvp": {"num_layers": 3, **WIDTHS},
    "maf": {"num_layers": 2, **WIDTHS},
    "iaf": {"num_layers": 2, **WIDTHS},
}


def build(kind: str, shape: tuple[int, ...], **settings: Any) -> Bijection:
    torch.manual_seed(0)
    built: Bijection = TypeAdapter(ArchitectureConfig).validate_python({"kind": kind, **settings}).build(shape)
    random_weights(built)
    return built


def names(bijection: Bijection) -> list[str]:
    """Of all bijections in it, in their order, but for what holds others."""
    held = [type(m).__name__ for m in bijection.modules() if isinstance(m, Bijection)]
    return [name for name in held if name not in (Composition.__name__, Multiscale.__name__)]


def reads(bijection: Bijection, shape: tuple[int, ...], rows: int = 16) -> Tensor:
    """[D, D] bool: whether a value (a row of this) depends on a value of the input, for some row."""
    x_RD = torch.randn(rows, math.prod(shape), dtype=torch.float64)
    return jacobians(bijection, x_RD).abs().amax(0) > 0


@pytest.mark.parametrize("kind", VECTORS)
def test_of_vectors_every_value_moves_every_other(kind: str) -> None:
    """Two couplings or autoregressive layers that are turned round reach everything; the third writes what was read."""
    assert bool(reads(build(kind, (5,), **VECTORS[kind]), (5,)).all())


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("realnvp_images", {"num_scales": 1, "hidden_channels": 4}),
        ("realnvp_images", {"num_scales": 2, "hidden_channels": 4}),
        ("glow", {"num_scales": 1, "num_steps": 1, "hidden_channels": 4}),
        ("glow", {"num_scales": 2, "num_steps": 2, "hidden_channels": 4}),
    ],
)
def test_of_images_no_value_is_only_scaled(kind: str, settings: dict[str, Any]) -> None:
    seen = reads(build(kind, (2, 4, 4), **settings), (2, 4, 4), rows=4)
    assert int(seen.sum(1).min()) > 1
    assert int(seen.sum(0).min()) > 1


def parts(*each: tuple[str, int]) -> dict[str, int]:
    return dict(each)


@pytest.mark.parametrize(
    ("kind", "settings", "wanted"),
    [
        ("planar", {"num_layers": 3}, parts(("Planar", 3))),
        ("nice", VECTORS["nice"], parts(("AdditiveCoupling", 3), ("ActNorm", 1))),
        ("realnvp", VECTORS["realnvp"], parts(("AffineCoupling", 3), ("ActNorm", 3))),
        ("maf", VECTORS["maf"], parts(("MaskedAutoregressive", 2), ("ActNorm", 2), ("Reverse", 2))),
        ("iaf", VECTORS["iaf"], parts(("Inverse", 2), ("MaskedAutoregressive", 2), ("ActNorm", 2), ("Reverse", 2))),
        (
            "realnvp_images",
            {"num_scales": 3, "hidden_channels": 2},
            parts(("AffineCoupling", 6 + 6 + 4), ("ActNorm", 6 + 6 + 4), ("Squeeze", 2)),
        ),
        (
            "glow",
            {"num_scales": 2, "num_steps": 3, "hidden_channels": 2},
            parts(("Squeeze", 2), ("ActNorm", 6), ("InvertibleConvolution", 6), ("AffineCoupling", 6)),
        ),
    ],
)
def test_the_parts_of_each_kind(kind: str, settings: dict[str, Any], wanted: dict[str, int]) -> None:
    shape = (5,) if kind in VECTORS else (1, 8, 8)
    assert Counter(names(build(kind, shape, **settings))) == wanted


def test_a_step_of_glow_is_in_the_papers_order() -> None:
    step = ["ActNorm", "InvertibleConvolution", "AffineCoupling"]
    found = names(build("glow", (1, 8, 8), num_scales=2, num_steps=3, hidden_channels=2))
    assert found == 2 * ["Squeeze", *3 * step]


def test_couplings_of_images_take_turns() -> None:
    """Of those that follow each other on one shape, what passes in one is transformed in the next."""
    built = build("realnvp_images", (1, 8, 8), num_scales=3, hidden_channels=2)
    masks = [module.mask for module in built.modules() if isinstance(module, AffineCoupling)]
    shapes = [tuple(mask.shape) for mask in masks]
    assert shapes == 3 * [(1, 8, 8)] + 3 * [(4, 4, 4)] + 3 * [(2, 4, 4)] + 3 * [(8, 2, 2)] + 4 * [(4, 2, 2)]
    for mask, following in pairwise(masks):
        assert mask.shape != following.shape or torch.equal(mask, ~following)
    first, squeezed = masks[0][0], masks[3]
    assert not bool((first[1:] == first[:-1]).any() or (first[:, 1:] == first[:, :-1]).any()), "a chess board"
    assert bool((squeezed == squeezed[:, :1, :1]).all()), "whole channels"
