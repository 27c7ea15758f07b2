"""Independent zeros and ones.

Shape legend: ... any batch shape, D values.
"""

from torch import Tensor
from torch.nn import functional as F

from data_pipeline.config import BadInput
from pretrain.layers.precision import at_least_float32


def bernoulli_log_prob(logits: Tensor, values: Tensor) -> Tensor:
    """[..., D], [..., D] -> [...] nats, at least float32; a value between 0 and 1 is the mean of so many draws."""
    logits = at_least_float32(logits)
    return -F.binary_cross_entropy_with_logits(logits, values.to(logits.dtype), reduction="none").sum(-1)


def check_binary(values: Tensor) -> Tensor:
    """The same values; BadInput unless they are zeros and ones."""
    wrong = (values != 0) & (values != 1)
    if bool(wrong.any()):
        raise BadInput(
            f"value {float(values[wrong][0]):g}: the model is of zeros and ones; make the data binary "
            "(data.pixels=threshold, sampled or dynamic)"
        )
    return values
