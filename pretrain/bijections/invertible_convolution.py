"""The invertible 1 x 1 convolution: one square matrix over the channels of every pixel, by its LU decomposition.

Kingma & Dhariwal 2018 (Glow, https://arxiv.org/abs/1807.03039, section 3.2):

    z = W x at each pixel,    W = P L (U + diag(exp s)),    log |det| = H W sum_c s_c

with L lower triangular with ones on its diagonal and U strictly upper triangular. P is a permutation that stays; the
signs that the diagonal starts with are in it. W starts as a random rotation. Training may make it singular: without
gradients (evaluation, samples) that is BadInput; with them the loss is not finite, and the run's policy for that acts.

Shape legend: R rows, C channels, H height, W width.
"""

import torch
from torch import Tensor, nn

from data_pipeline.config import BadInput
from pretrain.bijections.bijection import Bijection
from pretrain.layers.precision import at_least_float32


class InvertibleConvolution(Bijection):
    """Of [R, C, H, W]."""

    permutation_CC: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        rotation_CC, _ = torch.linalg.qr(torch.randn(channels, channels))
        permutation_CC, lower_CC, upper_CC = torch.linalg.lu(rotation_CC)
        diagonal_C = upper_CC.diagonal()
        sign_C = diagonal_C.sign()  # P L S U' = (P S) (S L S) U', where S U' = U
        self.register_buffer("permutation_CC", permutation_CC * sign_C)
        self.lower_CC = nn.Parameter((sign_C[:, None] * lower_CC * sign_C).tril(-1))
        self.upper_CC = nn.Parameter((sign_C[:, None] * upper_CC).triu(1))
        self.log_scale_C = nn.Parameter(diagonal_C.abs().log())

    def factors(self) -> tuple[Tensor, Tensor, Tensor]:
        """[C, C] each, at least float32: P, L with its ones, U with its diagonal."""
        lower_CC, upper_CC = at_least_float32(self.lower_CC), at_least_float32(self.upper_CC)
        one_CC = torch.eye(len(self.permutation_CC), dtype=lower_CC.dtype, device=lower_CC.device)
        diagonal_CC = torch.diag(at_least_float32(self.log_scale_C).exp())
        return self.permutation_CC.to(lower_CC.dtype), lower_CC.tril(-1) + one_CC, upper_CC.triu(1) + diagonal_CC

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        permutation_CC, lower_CC, upper_CC = self.factors()
        if not torch.is_grad_enabled():  # a look at the diagonal makes a device wait: not in training
            refuse_singular(upper_CC)
        weight_CC = permutation_CC @ lower_CC @ upper_CC
        places = x.shape[2] * x.shape[3]
        return torch.einsum("oc,rchw->rohw", weight_CC, x), self._log_det(places).expand(len(x))

    def _log_det(self, places: int) -> Tensor:
        return places * at_least_float32(self.log_scale_C).sum()

    def inverse(self, z: Tensor) -> Tensor:
        """BadInput where the weight is singular."""
        permutation_CC, lower_CC, upper_CC = self.factors()
        refuse_singular(upper_CC)
        flat_CN = permutation_CC.T @ z.transpose(0, 1).flatten(1)
        flat_CN = torch.linalg.solve_triangular(lower_CC, flat_CN, upper=False, unitriangular=True)
        flat_CN = torch.linalg.solve_triangular(upper_CC, flat_CN, upper=True)
        return flat_CN.view(z.shape[1], z.shape[0], *z.shape[2:]).transpose(0, 1)


def refuse_singular(upper_CC: Tensor) -> None:
    """BadInput where the diagonal has a factor that cannot be divided by."""
    diagonal_C = upper_CC.diagonal()
    singular_C = (diagonal_C == 0) | ~diagonal_C.isfinite()
    if bool(singular_C.any()):
        channel = int(singular_C.nonzero()[0])
        raise BadInput(
            f"the invertible convolution's weight is singular: factor {float(diagonal_C[channel]):g} of channel "
            f"{channel} of {len(diagonal_C)}, where it must be finite and not 0; use an earlier checkpoint, and a "
            "smaller optimizer.learning_rate"
        )
