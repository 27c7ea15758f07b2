"""Every picture that a model of images can give: by what it can do, from the protocols of `pretrain.contract`.

    samples          draws
    classes          draws of each class, a row a class
    completions      a held-out image, the same with its lower half hidden, and what the model draws there
    reconstructions  held-out images, and below each what comes back from its latents
    interpolations   from one held-out image to another, in equal steps of the latents on the straight line
    spherical_interpolations  the same in equal turns (straight between latents that are opposite)
    attributes       a held-out image of one class moved, in equal steps, by the way from its class to another
    traversals       one latent after another moved from its lowest to its highest value among held-out images

Shape legend: N images, D values of one, Z latents, K columns of a grid.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from data_pipeline.batch import to_device
from data_pipeline.config import BadInput
from data_pipeline.streams.vectors import Vectors
from evals.vectors import batch_of
from pretrain.contract import Autoencoder, Completer, ConditionalSampler, Model, Sampler
from pretrain.latent_operations import attribute_vector, interpolate
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
    shape: tuple[int, ...],
    num_classes: int | None,
    seed: int,
    count: int = 64,
    device: torch.device = CPU,
) -> Iterator[Gallery]:
    """All that the model, which is on `device`, can give, each from its own seed.

    `shape` is channels, height and width of an image, `num_classes` what the model is told (None: nothing), `count`
    that of samples. Of fewer held-out images than a gallery shows there are fewer rows in it, and no interpolation of a
    single one.
    """
    if isinstance(model, Sampler):
        seed_everything(seed, "sample")
        yield Gallery("samples", model.sample(count).float().cpu(), columns=round(count**0.5) or 1)
    if isinstance(model, ConditionalSampler) and num_classes is not None:
        seed_everything(seed, "classes")
        labels_N = torch.arange(num_classes, device=device).repeat_interleave(COLUMNS)
        yield Gallery("classes", model.sample_of(labels_N).float().cpu(), COLUMNS)
    some_ND = torch.from_numpy(held_out.rows(slice(ROWS)))
    if isinstance(model, Completer):
        seed_everything(seed, "completions")
        yield _completions(model, some_ND, shape, device)
    if isinstance(model, Autoencoder):
        seed_everything(seed, "latents")
        yield from _of_latents(model, held_out, device)


def upper_half(shape: tuple[int, ...]) -> Tensor:
    """[D] bool: which values are of the upper half of the rows of pixels, in every channel."""
    _, height, _ = shape
    return (torch.arange(height) < height // 2)[:, None].expand(shape).flatten()


def _completions(model: Completer, some_ND: Tensor, shape: tuple[int, ...], device: torch.device) -> Gallery:
    known_D = upper_half(shape)
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
    paths = min(ROWS, len(latents_NZ) // 2)
    pairs = list(zip(latents_NZ[:paths], latents_NZ[paths : 2 * paths], strict=True))
    if pairs:
        straight_XZ = torch.cat([interpolate(one_Z, other_Z, COLUMNS) for one_Z, other_Z in pairs])
        yield Gallery("interpolations", model.decode(straight_XZ).float().cpu(), COLUMNS)
        turned_XZ = torch.cat([_turned(one_Z, other_Z) for one_Z, other_Z in pairs])
        yield Gallery("spherical_interpolations", model.decode(turned_XZ).float().cpu(), COLUMNS)
    moved = list(_by_class(latents_NZ, batch.labels.to(latents_NZ.device)))
    if moved:
        yield Gallery("attributes", model.decode(torch.cat(moved)).float().cpu(), COLUMNS)
    share_K1 = torch.linspace(0, 1, COLUMNS, dtype=latents_NZ.dtype, device=latents_NZ.device)[:, None]
    shown = min(ROWS, latents_NZ.shape[1])
    lowest_Z, highest_Z = latents_NZ.amin(0), latents_NZ.amax(0)
    moved_XZ = latents_NZ[0].repeat(shown * COLUMNS, 1)
    for place in range(shown):
        own = slice(place * COLUMNS, (place + 1) * COLUMNS)
        moved_XZ[own, place] = (lowest_Z + share_K1 * (highest_Z - lowest_Z))[:, place]
    yield Gallery("traversals", model.decode(moved_XZ).float().cpu(), COLUMNS)


def _turned(one_Z: Tensor, other_Z: Tensor) -> Tensor:
    try:
        return interpolate(one_Z, other_Z, COLUMNS, "spherical")
    except BadInput:  # opposite
        return interpolate(one_Z, other_Z, COLUMNS)


def _by_class(latents_NZ: Tensor, labels_N: Tensor) -> Iterator[Tensor]:
    """[K, Z] of one image of each class that was seen, on its way to the next class; of labels below 0 nothing."""
    classes = labels_N[labels_N >= 0].unique().tolist()
    if len(classes) < 2:
        return
    for own, goal in list(zip(classes, classes[1:] + classes[:1], strict=True))[:ROWS]:
        either_N = (labels_N == own) | (labels_N == goal)
        step_Z = attribute_vector(latents_NZ[either_N], labels_N[either_N] == goal)
        begin_Z = latents_NZ[labels_N == own][0]
        yield interpolate(begin_Z, begin_Z + step_Z, COLUMNS)
