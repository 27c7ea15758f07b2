"""Autoregressive bijections: masked (MAF) and inverse (IAF).

Papamakarios et al. 2017 (MAF, https://arxiv.org/abs/1705.07057, equations 3 to 5), Kingma et al. 2016 (IAF,
https://arxiv.org/abs/1606.04934, section 3):

    z_i = (x_i - m_i(x_before_i)) exp(-a_i(x_before_i)),    log |det| = -sum_i a_i

Its Jacobian is lower triangular. This way round takes one pass of a masked network, the inverse one for each dimension.
As a density of x that is MAF; inverted (`Inverse`), where samples take one pass and densities many, it is IAF. A
posterior of noise that is drawn and then transformed takes this way round too (IAF with its names exchanged).

Shape legend: R rows, D values of a row, C values of a context.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from pretrain.bijections.bijection import Bijection
from pretrain.bijections.coupling import LARGEST_LOG_SCALE
from pretrain.bijections.masked import MaskedPerceptron
from pretrain.layers.precision import at_least_float32, to_dtype_of


class MaskedAutoregressive(Bijection):
    """Of [R, D], perhaps with a context [R, C] that the network reads as well."""

    def __init__(self, num_values: int, hidden_widths: Sequence[int], context_width: int = 0) -> None:
        super().__init__()
        self.num_values = num_values
        self.network = MaskedPerceptron(num_values, hidden_widths, outputs=2, context_width=context_width)

    def _mean_and_log_scale(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        if context is not None:
            context = to_dtype_of(self.network, context)
        mean_RD, raw_RD = at_least_float32(self.network(to_dtype_of(self.network, x), context)).unbind(-1)
        return mean_RD, LARGEST_LOG_SCALE * torch.tanh(raw_RD / LARGEST_LOG_SCALE)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        mean_RD, log_scale_RD = self._mean_and_log_scale(x, context)
        return (x - mean_RD) * (-log_scale_RD).exp(), -log_scale_RD.sum(1)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Dimension by dimension: after pass i the first i are right."""
        x_RD = torch.zeros_like(z)
        for _ in range(z.shape[1]):
            mean_RD, log_scale_RD = self._mean_and_log_scale(x_RD, context)
            x_RD = z * log_scale_RD.exp() + mean_RD
        return x_RD
