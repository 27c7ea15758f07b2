"""What must hold of every bijection, checked against autograd.

Shape legend: R rows, D values of a row.
"""

import torch
from torch import Tensor, nn

from pretrain.bijections.bijection import Bijection

EXACT = 1e-9


def random_weights(bijection: nn.Module, std: float = 0.4) -> None:
    """Every parameter in float64, and none near what it starts at."""
    bijection.double()
    with torch.no_grad():
        for parameter in bijection.parameters():
            parameter.normal_(std=std)


def jacobians(bijection: Bijection, x: Tensor) -> Tensor:
    """[R, D, D] of each row's flattened values."""
    rows = []
    for row in x:
        whole = torch.autograd.functional.jacobian(lambda one: bijection(one[None])[0][0].flatten(), row)
        rows.append(whole.reshape(row.numel(), row.numel()))
    return torch.stack(rows)


def inverse_error(bijection: Bijection, x: Tensor) -> float:
    """Of there and back."""
    with torch.no_grad():
        return float((bijection.inverse(bijection(x)[0]) - x).abs().max())


def log_det_error(bijection: Bijection, x: Tensor) -> float:
    """Against the determinant of autograd's Jacobian."""
    _, log_det_R = bijection(x)
    assert log_det_R.shape == (len(x),)
    return float((log_det_R.detach() - torch.linalg.slogdet(jacobians(bijection, x))[1]).abs().max())
