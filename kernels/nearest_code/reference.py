"""The nearest code in plain torch: the specification of the operation.

|x - c|^2 = |x|^2 - 2 x . c + |c|^2, of which |x|^2 is the same for all codes.

Shape legend: N vectors, K codes, W width.
"""

import torch
from torch import Tensor

BLOCK_VECTORS = 4096
"""Whose distances to all codes are held at once."""


def nearest_code(x_NW: Tensor, codes_KW: Tensor) -> Tensor:
    """[N] int64; see the package."""
    work = torch.float64 if x_NW.dtype == torch.float64 else torch.float32
    codes_KW = codes_KW.to(work)
    half_square_K = codes_KW.square().sum(1) / 2
    parts = [(half_square_K - x.to(work) @ codes_KW.T).min(1).indices for x in x_NW.split(BLOCK_VECTORS)]
    return torch.cat(parts)
