"""In which precision numbers are added up."""

import torch
from torch import Tensor, nn


def at_least_float32(x: Tensor) -> Tensor:
    """Low-precision numbers as float32; float64 stays, for tests of identities."""
    return x if x.dtype == torch.float64 else x.float()


def to_dtype_of(module: nn.Module, x: Tensor) -> Tensor:
    """x in the dtype of the module's weights, which it computes in."""
    return x.to(next(module.parameters()).dtype)
