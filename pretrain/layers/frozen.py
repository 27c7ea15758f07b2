"""A network through which gradients pass while its parameters get none: an opponent's."""

from torch import Tensor, nn
from torch.func import functional_call


def frozen(module: nn.Module, values: Tensor) -> Tensor:
    """module(values) through which gradients reach the values but no parameter."""
    weights = {name: parameter.detach() for name, parameter in module.named_parameters()}
    return functional_call(module, weights, (values,))
