"""Companding of waves: few codes, close together where a wave is quiet.

ITU-T recommendation G.711, as van den Oord et al. 2016 use it (WaveNet, https://arxiv.org/abs/1609.03499, section 2.2):
with x from -1 to 1 and mu one less than the number of codes,

    f(x) = sign(x) ln(1 + mu |x|) / ln(1 + mu),    code = round((f + 1) / 2 * mu)

and back from the middle of a code. Values here are from 0 to 1, with silence at a half: x = 2 v - 1.
"""

import math

import torch
from torch import Tensor

from data_pipeline.config import BadInput
from pretrain.layers.precision import at_least_float32


def mu_law_codes(values: Tensor, num_codes: int) -> Tensor:
    """int64 codes 0 .. num_codes - 1 of values in [0, 1]; BadInput for one outside."""
    if values.numel() and not (float(values.min()) >= 0 and float(values.max()) <= 1):  # so that NaN is outside
        raise BadInput(
            f"samples from {float(values.min()):g} to {float(values.max()):g}: must lie from 0 to 1, with silence at "
            "0.5; scale them"
        )
    x, mu = 2 * at_least_float32(values) - 1, num_codes - 1
    companded = x.sign() * torch.log1p(mu * x.abs()) / math.log1p(mu)
    return ((companded + 1) / 2 * mu + 0.5).floor().long()


def mu_law_values(codes: Tensor, num_codes: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """The value in [0, 1] of each code."""
    mu = num_codes - 1
    companded = 2 * codes.to(dtype) / mu - 1
    x = companded.sign() * torch.expm1(companded.abs() * math.log1p(mu)) / mu
    return ((x + 1) / 2).clamp(0, 1)
