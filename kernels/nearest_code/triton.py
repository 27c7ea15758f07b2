"""The nearest code as a fused Triton kernel: a product of tiles and a running minimum.

Shape legend: N vectors, K codes, W width.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor


class Tiles(NamedTuple):
    """Vectors, codes, and width of one step of the product."""

    vectors: int = 64
    codes: int = 64
    width: int = 32
    warps: int = 4
    stages: int = 2


def tiles_for(dtype: torch.dtype) -> Tiles:
    """Of which no registers are spilled (`python -m kernels.aot`): exact float32 has no matrix instruction."""
    return Tiles(width=16) if dtype == torch.float32 else Tiles()


@triton.jit
def nearest_code_kernel(
    X, CODES, HALF_SQUARE, NEAREST, num_vectors, num_codes, x_step, c_step,
    W: tl.constexpr, VECTORS: tl.constexpr, TILE: tl.constexpr, WIDTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """NEAREST [N] of one tile of vectors. A later tile wins only if it is strictly nearer: ties go to the lowest."""
    n = tl.program_id(0) * VECTORS + tl.arange(0, VECTORS)
    least = tl.full([VECTORS], float("inf"), tl.float32)
    nearest = tl.zeros([VECTORS], tl.int64)
    for first in range(0, num_codes, TILE):
        k = first + tl.arange(0, TILE)
        product = tl.zeros([VECTORS, TILE], tl.float32)
        for start in range(0, W, WIDTH):
            w = start + tl.arange(0, WIDTH)
            x_at = X + n.to(tl.int64)[:, None] * x_step + w[None, :]
            c_at = CODES + k.to(tl.int64)[:, None] * c_step + w[None, :]
            x = tl.load(x_at, mask=(n < num_vectors)[:, None] & (w < W)[None, :], other=0.0)
            c = tl.load(c_at, mask=(k < num_codes)[:, None] & (w < W)[None, :], other=0.0)
            product = tl.dot(x, tl.trans(c), product, input_precision=PRECISION)
        distance = tl.load(HALF_SQUARE + k, mask=k < num_codes, other=float("inf"))[None, :] - product
        found, place = tl.min(distance, 1, return_indices=True, return_indices_tie_break_left=True)
        nearer = found < least
        nearest = tl.where(nearer, first + place.to(tl.int64), nearest)
        least = tl.where(nearer, found, least)
    tl.store(NEAREST + n, nearest, mask=n < num_vectors)


def nearest_code(x_NW: Tensor, codes_KW: Tensor, tiles: Tiles | None = None) -> Tensor:
    """[N] int64; see the package."""
    tiles, (num_vectors, width) = tiles or tiles_for(x_NW.dtype), x_NW.shape
    half_square_K = codes_KW.float().square().sum(1) / 2
    nearest_N = torch.empty(num_vectors, dtype=torch.int64, device=x_NW.device)
    with torch.cuda.device_of(x_NW):
        nearest_code_kernel[(triton.cdiv(num_vectors, tiles.vectors),)](
            x_NW, codes_KW, half_square_K, nearest_N, num_vectors, len(codes_KW), x_NW.stride(0), codes_KW.stride(0),
            W=width, VECTORS=tiles.vectors, TILE=tiles.codes, WIDTH=tiles.width, PRECISION="ieee",
            num_warps=tiles.warps, num_stages=tiles.stages,
        )  # fmt: skip
    return nearest_N
