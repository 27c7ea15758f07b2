"""What a model of independent vectors can do besides saying p(x): its samples, where the data's modes are known, and
its latents, where the data have labels.

Shape legend: N rows, R of a batch, Z width of a latent.
"""

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor

from data_pipeline.batch import VectorBatch, to_device
from data_pipeline.points import EightGaussiansConfig
from data_pipeline.streams.vectors import Vectors
from data_pipeline.vector_data import VectorData
from evals.metric import Metric
from evals.metrics.linear_probe import linear_probe
from evals.metrics.mixture_modes import mixture_modes
from evals.vectors import batch_of
from pretrain.contract import Encoder, Model, Sampler
from pretrain.rng import seed_everything

DRAWN = 2500
"""Samples that modes are counted in."""
RADIUS = 4.0
"""Deviations within which a sample is near a mode: 99.97% of the mixture itself."""
EPOCHS, PROBE_ROWS, MOST_UPDATES = 100, 64, 80_000
"""Of the probe: so many epochs, or the fewer that take no more updates (half a minute of one processor)."""


@torch.no_grad()
def mode_metrics(
    model: Model, data: VectorData, *, seed: int, device: torch.device, protocol: Mapping[str, Any]
) -> list[Metric]:
    """`modes_covered` and `high_quality` (within four deviations) of a model that draws points of eight Gaussians."""
    if not isinstance(data, EightGaussiansConfig) or not isinstance(model, Sampler):
        return []
    seed_everything(seed, "modes")
    drawn_ND = model.sample(DRAWN)
    known = {**protocol, "seed": seed}
    centres_MD = torch.from_numpy(data.centres())
    return list(mixture_modes(drawn_ND, centres_MD, standard_deviation=data.std, radius=RADIUS, protocol=known))


def probe_metrics(
    model: Model,
    data: VectorData,
    vectors: Vectors,
    *,
    rows: int,
    seed: int,
    device: torch.device,
    protocol: Mapping[str, Any],
) -> list[Metric]:
    """`linear_probe_accuracy` of one layer on the latents, trained on the split "train" and tested on `vectors`."""
    if data.num_classes is None or not isinstance(model, Encoder):
        return []
    train = data.vectors("train").fixed()
    updates = -(-len(train.labels) // PROBE_ROWS)
    return [
        linear_probe(
            _latents(model, train, rows, device),
            _latents(model, vectors, rows, device),
            num_classes=data.num_classes,
            seed=seed,
            epochs=max(1, min(EPOCHS, MOST_UPDATES // updates)),
            rows=PROBE_ROWS,
            protocol=protocol,
        )
    ]


@torch.no_grad()
def _latents(model: Encoder, vectors: Vectors, rows: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """([N, Z], [N] labels)."""
    starts = range(0, len(vectors.labels), rows)
    batches = (cast(VectorBatch, to_device(batch_of(vectors, start, rows), device)) for start in starts)
    return torch.cat([model.encode(batch).float().cpu() for batch in batches]), torch.from_numpy(vectors.labels)
