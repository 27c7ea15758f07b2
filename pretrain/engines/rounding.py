"""Float32 masters of weights that the model computes with in less: how gradients and changes come to them.

Used where the masters are whole on every worker: by the local engine, and by DeepSpeed without ZeRO.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def round_weights(weights: Mapping[str, nn.Parameter], dtype: torch.dtype) -> dict[str, nn.Parameter]:
    """Float32 masters of weights that become rounded copies; each rounded gradient is added to its master's at once.

    Weights in float32 are their own masters.
    """
    if dtype == torch.float32:
        return dict(weights)
    masters = {name: nn.Parameter(weight.detach().clone()) for name, weight in weights.items()}
    for name, weight in weights.items():
        weight.data = weight.data.to(dtype)
        weight.register_post_accumulate_grad_hook(GradientToMaster(masters[name]))
    return masters


class GradientToMaster:
    """A hook that adds a weight's gradient to that of its master, and keeps no other."""

    def __init__(self, master: nn.Parameter) -> None:
        self.master = master

    def __call__(self, weight: Tensor) -> None:
        assert weight.grad is not None
        gradient = weight.grad.float()
        self.master.grad = gradient if self.master.grad is None else self.master.grad.add_(gradient)
        weight.grad = None


@torch.no_grad()
def adopt(master: Tensor, weight: Tensor) -> None:
    """Bring into the master what the model itself has changed in its weight (`Model.after_turn`)."""
    master.copy_(torch.where(weight == master.to(weight.dtype), master, weight.float()))
