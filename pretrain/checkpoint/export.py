"""Whole tensors out of a checkpoint, for one process that evaluates or samples."""

import math

from torch import Tensor

from pretrain.checkpoint.piece import Reader


def gather_weights(reader: Reader) -> dict[str, Tensor]:
    """Every parameter, in its shape, by the name that the model gives it."""
    return gather_tensors(reader, kind="weights")


def gather_tensors(reader: Reader, *, kind: str) -> dict[str, Tensor]:
    """Every tensor named `<kind>/<name>`, in its shape, by `<name>`."""
    names = sorted(name for name in reader.names() if name.startswith(f"{kind}/"))
    return {name.removeprefix(f"{kind}/"): whole(reader, name) for name in names}


def whole(reader: Reader, name: str) -> Tensor:
    """The whole tensor, in its shape."""
    shape = reader.shape(name)
    return reader.read(name, 0, math.prod(shape)).reshape(shape)
