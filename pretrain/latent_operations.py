"""What can be done with the latents of any model that encodes and decodes.

Spherical interpolation: White 2016 (https://arxiv.org/abs/1609.04468, section 2.1); vectors of attributes: Roberts et
al. 2018 (https://arxiv.org/abs/1803.05428, section 4.3).

Shape legend: N rows, S steps, Z latents.
"""

from typing import Literal

import torch
from torch import Tensor

from data_pipeline.batch import Batch
from data_pipeline.config import BadInput
from pretrain.contract import Decoder, Encoder, Model


def interpolate(a_Z: Tensor, b_Z: Tensor, steps: int, path: Literal["straight", "spherical"] = "straight") -> Tensor:
    """[S, Z] evenly spaced from a to b, both included.

    `spherical` turns at an even rate from one direction to the other, as suits latents whose prior is normal: lengths
    between are those that it expects. Where the two point the same way it is straight, where they are opposite there
    is no shortest turn: BadInput.
    """
    if steps < 2 or a_Z.shape != b_Z.shape or a_Z.dim() != 1:
        raise BadInput(f"{steps} steps between {list(a_Z.shape)} and {list(b_Z.shape)}: need 2, and two equal vectors")
    share_S1 = torch.linspace(0, 1, steps, dtype=a_Z.dtype, device=a_Z.device)[:, None]
    straight_SZ = (1 - share_S1) * a_Z + share_S1 * b_Z
    if path == "straight":
        return straight_SZ
    cosine = torch.nn.functional.cosine_similarity(a_Z, b_Z, dim=0).clamp(-1, 1)
    angle = torch.arccos(cosine)
    if float(angle.sin()) < 4 * torch.finfo(a_Z.dtype).eps ** 0.5:
        if cosine > 0:
            return straight_SZ
        raise BadInput("spherical interpolation between opposite latents has no shortest path; use path straight")
    return (torch.sin((1 - share_S1) * angle) * a_Z + torch.sin(share_S1 * angle) * b_Z) / angle.sin()


def attribute_vector(latents_NZ: Tensor, has_N: Tensor) -> Tensor:
    """[Z] the mean of latents that have an attribute minus the mean of those that have not: add it to give it."""
    has_N = has_N.bool()
    if not 0 < int(has_N.sum()) < len(has_N):
        raise BadInput(f"{int(has_N.sum())} of {len(has_N)} rows have the attribute; there must be some, and not all")
    return latents_NZ[has_N].mean(0) - latents_NZ[~has_N].mean(0)


def reconstruct(model: Model, batch: Batch) -> Tensor:
    """[N, D] what the model decodes of what it encodes; BadInput where it cannot do both."""
    if not isinstance(model, Encoder) or not isinstance(model, Decoder):
        raise BadInput(f"{type(model).__name__} does not both encode and decode; choose a model of latents")
    decoded: Tensor = model.decode(model.encode(batch))
    return decoded
