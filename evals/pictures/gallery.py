"""Every picture that a model of images can give: by what it can do, from the protocols of `pretrain.contract`.

    samples          draws
    classes          draws of each class, a row a class
    completions      a held-out image, the same with its lower half hidden, and what the model draws there
    reconstructions  held-out images, and below each what comes back from its latents
    interpolations   from one held-out image to another, in equal steps of the latents
    traversals       one latent after another moved from its lowest to its highest value among held-out images

Shape legend: N images, D values of one, Z latents, K columns of a grid.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from data_pipeline.batch import to_device
from data_pipeline.streams.vectors import Vectors
from evals.vectors import batch_of
from pretrain.contract import Autoencoder, Completer, ConditionalSampler, Model, Sampler
from pretrain.rng import seed_everything

CPU = torch.device("cpu")
ROWS, COLUMNS = 8, 10
SEEN = 100
"""Held-out images whose latents say how far each of them goes."""
HIDDEN = 0.5
"""What a pixel that is not known looks like."""


@dataclass(frozen=True)
class Gallery:
    """Images for one grid."""

    name: str
    values_ND: Tensor
    columns: int


@torch.no_grad()
def galleries(
    model: Model,
    held_out: Vectors,
    *,
    num_classes: int | None,
    seed: int,
    count: int = 64,
    device: torch.device = CPU,
) -> Iterator[Gallery]:
    """All that the model, which is on `device`, can give, each from its own seed; `count` is that of samples.

    Of fewer held-out images than a gallery shows there are fewer rows in it, and no interpolation of a single one.
    """
    if isinstance(model, Sampler):
        seed_everything(seed, "sample")
        yield Gallery("samples", model.sample(count).float().cpu(), columns=round(count**0.5) or 1)
    if isinstance(model, ConditionalSampler) and num_classes is not None:
        seed_everything(seed, "classes")
        labels_N = torch.arange(num_classes, device=device).repeat_interleave(COLUMNS)
        yield Gallery("classes", model.sample_of(labels_N).float().cpu(), COLUMNS)
    some_ND = torch.from_numpy(held_out.values[:ROWS])
    if isinstance(model, Completer):
        seed_everything(seed, "completions")
        yield _completions(model, some_ND, device)
    if isinstance(model, Autoencoder):
        seed_everything(seed, "latents")
        yield from _of_latents(model, held_out, device)


def _completions(model: Completer, some_ND: Tensor, device: torch.device) -> Gallery:
    known_D = torch.arange(some_ND.shape[1]) < some_ND.shape[1] // 2
    drawn = COLUMNS - 2
    values_XD = some_ND.repeat_interleave(drawn, 0)
    known_XD = known_D.expand(values_XD.shape)
    complete_XD = model.complete(values_XD.to(device), known_XD.to(device)).float().cpu()
    rows = [
        torch.cat([one_D[None], torch.where(known_D, one_D, HIDDEN)[None], own_KD])
        for one_D, own_KD in zip(some_ND, complete_XD.split(drawn), strict=True)
    ]
    return Gallery("completions", torch.cat(rows), COLUMNS)


def _of_latents(model: Autoencoder, held_out: Vectors, device: torch.device) -> Iterator[Gallery]:
    batch = batch_of(held_out, 0, SEEN)
    values_ND, latents_NZ = batch.values, model.encode(to_device(batch, device))
    decoded_ND = model.decode(latents_NZ[:COLUMNS]).float().cpu()
    yield Gallery("reconstructions", torch.cat([values_ND[:COLUMNS], decoded_ND]), len(decoded_ND))
    share_K1 = torch.linspace(0, 1, COLUMNS, dtype=latents_NZ.dtype, device=latents_NZ.device)[:, None]
    paths = min(ROWS, len(latents_NZ) // 2)
    if paths:
        pairs = zip(latents_NZ[:paths], latents_NZ[paths : 2 * paths], strict=True)
        between_XZ = torch.cat([(1 - share_K1) * one_Z + share_K1 * other_Z for one_Z, other_Z in pairs])
        yield Gallery("interpolations", model.decode(between_XZ).float().cpu(), COLUMNS)
    shown = min(ROWS, latents_NZ.shape[1])
    lowest_Z, highest_Z = latents_NZ.amin(0), latents_NZ.amax(0)
    moved_XZ = latents_NZ[0].repeat(shown * COLUMNS, 1)
    for place in range(shown):
        own = slice(place * COLUMNS, (place + 1) * COLUMNS)
        moved_XZ[own, place] = (lowest_Z + share_K1 * (highest_Z - lowest_Z))[:, place]
    yield Gallery("traversals", model.decode(moved_XZ).float().cpu(), COLUMNS)
