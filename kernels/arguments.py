"""What the operations require of their tensors alike."""

from collections.abc import Iterable

from torch import Tensor


def check_last_dimension(named: Iterable[tuple[str, Tensor]]) -> None:
    """Raises ValueError, with name, shape and strides, for a tensor whose last dimension is not contiguous."""
    for name, tensor in named:
        if tensor.numel() and tensor.shape[-1] > 1 and tensor.stride(-1) != 1:
            raise ValueError(
                f"{name} {tuple(tensor.shape)} has strides {tensor.stride()}; its last dimension must be contiguous"
            )
