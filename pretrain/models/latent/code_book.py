"""Vector quantization with straight-through gradients.

van den Oord et al. 2017 (https://arxiv.org/abs/1711.00937, equations 1 to 3): each vector x becomes its nearest code c,
what follows is computed with c and its gradient handed to x unchanged, and

    |sg(x) - c|^2  moves the codes,    |x - sg(c)|^2  (commitment) keeps the vectors near them.

The codes follow this loss, not moving averages of the vectors that chose them (the paper's appendix A.1): a worker sees
its own micro-batches only, and gradients are what is summed over all. With n_k vectors that chose code k the gradient
is 2 n_k (c_k - their mean), so a step of 1 / (2 n_k) along it would be one of Lloyd's algorithm.

Shape legend: R rows, P positions, W width of a code, K codes.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kernels.choice import Implementation
from kernels.nearest_code import nearest_code
from pretrain.layers.precision import at_least_float32


class CodeBook(nn.Module):
    """K codes of one width for all positions."""

    kernel = "nearest_code"

    def __init__(self, num_codes: int, width: int) -> None:
        super().__init__()
        self.impl: Implementation = "auto"
        self.codes_KW = nn.Parameter(torch.randn(num_codes, width))

    def kernel_unsupported(self) -> str | None:
        return None

    def nearest(self, x_RPW: Tensor) -> Tensor:
        """[R, P] int64 the number of each vector's nearest code."""
        x_NW, codes_KW = at_least_float32(x_RPW).detach().flatten(0, 1), at_least_float32(self.codes_KW).detach()
        return nearest_code(x_NW, codes_KW, impl=self.impl).view(x_RPW.shape[:2])

    def vectors(self, codes_RP: Tensor) -> Tensor:
        """[R, P, W], at least float32."""
        return F.embedding(codes_RP, at_least_float32(self.codes_KW))

    def forward(self, x_RPW: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Vectors -> [R, P, W] codes whose gradient goes to the vectors, [R, P] their numbers, and of each row [R] the
        loss of the codes and the commitment."""
        x_RPW = at_least_float32(x_RPW)
        numbers_RP = self.nearest(x_RPW)
        chosen_RPW = self.vectors(numbers_RP)
        codes_R = (x_RPW.detach() - chosen_RPW).square().sum((1, 2))
        commitment_R = (x_RPW - chosen_RPW.detach()).square().sum((1, 2))
        return chosen_RPW.detach() + (x_RPW - x_RPW.detach()), numbers_RP, codes_R, commitment_R
