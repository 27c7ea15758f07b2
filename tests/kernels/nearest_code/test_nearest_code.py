"""The nearest code against the definition, in every dtype; compiled on a GPU, else in Triton's interpreter."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from kernels.nearest_code import nearest_code, reference, triton, unsupported
from kernels.nearest_code.triton import Tiles

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SHAPES = [(37, 41, 75), (1, 8, 1), (64, 16, 64), (50, 5, 130)]
"""Vectors, width, codes."""
DTYPES = [torch.float32, torch.float16, *([torch.bfloat16] if torch.cuda.is_available() else [])]


def of_whole_numbers(shape: tuple[int, int, int], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Few and small, so that every sum is exact and many codes are equally near."""
    vectors, width, codes = shape
    torch.manual_seed(1)
    return tuple(torch.randint(-1, 2, (n, width)).to(DEVICE, dtype) for n in (vectors, codes))  # type: ignore[return-value]


def by_definition(x_NW: Tensor, codes_KW: Tensor) -> list[int]:
    distance_NK = (x_NW.double()[:, None] - codes_KW.double()).square().sum(-1)
    return [row.tolist().index(row.min().item()) for row in distance_NK]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_nearest_and_of_ties_the_lowest(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    x_NW, codes_KW = of_whole_numbers(shape, dtype)
    codes_KW = torch.cat([codes_KW, codes_KW])  # every code is there twice
    expected = by_definition(x_NW, codes_KW)
    assert reference.nearest_code(x_NW, codes_KW).tolist() == expected
    for tiles in (Tiles(), Tiles(16, 16, 16), Tiles(16, 128, 64)):
        assert triton.nearest_code(x_NW, codes_KW, tiles).tolist() == expected


def test_of_real_numbers_it_is_as_near_as_the_nearest() -> None:
    x_NW, codes_KW = torch.randn(200, 64, device=DEVICE), torch.randn(300, 64, device=DEVICE)
    distance_NK = (x_NW.double()[:, None] - codes_KW.double()).square().sum(-1)
    for found in (triton.nearest_code(x_NW, codes_KW), reference.nearest_code(x_NW, codes_KW)):
        chosen_N = distance_NK.gather(1, found[:, None])[:, 0]
        torch.testing.assert_close(chosen_N, distance_NK.min(1).values, rtol=1e-6, atol=0)


def test_the_package_chooses_what_it_is_told() -> None:
    x_NW, codes_KW = of_whole_numbers(SHAPES[0], torch.float32)
    found = [nearest_code(x_NW, codes_KW, impl=impl) for impl in ("auto", "triton", "reference")]
    assert all(torch.equal(found[0], other) for other in found)
    assert nearest_code(x_NW[:0], codes_KW, impl="triton").shape == (0,)
    assert "not torch.float64" in str(unsupported(x_NW.double()))
    with pytest.raises(ValueError, match=r"nearest_code: impl='triton' cannot run: .* not torch.float64"):
        nearest_code(x_NW.double(), codes_KW.double(), impl="triton")


@pytest.mark.parametrize("impl", ["auto", "triton", "reference"])
@pytest.mark.parametrize(
    ("x", "codes", "rule"),
    [
        (torch.zeros(3), torch.zeros(2, 3), "x_NW has shape (3,); it must have 2 dimensions"),
        (torch.zeros(4, 3), torch.zeros(2, 5), "codes_KW has shape (2, 5); with x_NW (4, 3) it must be (K, 3), K >= 1"),
        (torch.zeros(4, 3), torch.zeros(0, 3), "codes_KW has shape (0, 3); with x_NW (4, 3)"),
        (torch.zeros(4, 3), torch.zeros(2, 3).half(), "codes_KW (2, 3) is of torch.float16 on cpu; it must be of"),
        (torch.zeros(3, 4).T, torch.zeros(2, 3), "x_NW (4, 3) has strides (1, 4); its last dimension must be"),
    ],
)
def test_what_does_not_fit_is_named(x: Tensor, codes: Tensor, rule: str, impl: Any) -> None:
    with pytest.raises(ValueError, match=re.escape(rule)):
        nearest_code(x, codes, impl=impl)
