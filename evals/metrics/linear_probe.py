"""How much of the labels one dense layer reads from latents: the single-layer classifier of Berthelot et al. 2018
(ACAI, https://arxiv.org/abs/1807.07543, section 4).

Softmax regression trained by Adam on detached latents. The paper trains it beside the autoencoder; here the latents are
those of one checkpoint, and are neither scaled nor centred.

Shape legend: N latents, R of a batch, Z width of a latent.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from data_pipeline.config import BadInput
from evals.metric import Metric
from evals.metrics.average import average
from pretrain.rng import seed_at


def linear_probe(
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    *,
    num_classes: int,
    seed: int,
    epochs: int = 100,
    rows: int = 64,
    learning_rate: float = 1e-3,
    protocol: Mapping[str, Any],
) -> Metric:
    """`linear_probe_accuracy` in per cent of the test split, with its binomial error.

    Both splits are (latents [N, ...], labels [N] int64 below `num_classes`); latents are flattened to [N, Z]. Weights
    start at zero and the order of batches is a function of `seed`, so equal latents give equal numbers.
    """
    if rows < 1 or epochs < 0 or num_classes < 1:
        raise BadInput(
            f"rows {rows}, epochs {epochs}, num_classes {num_classes}: rows and classes must be at least 1, epochs 0"
        )
    train_NZ, train_labels_N = _checked(*train, num_classes, "train")
    test_NZ, test_labels_N = _checked(*test, num_classes, "test")
    if train_NZ.shape[1] != test_NZ.shape[1]:
        raise BadInput(f"latents are {train_NZ.shape[1]} wide in train and {test_NZ.shape[1]} in test; must be equal")
    generator = torch.Generator().manual_seed(seed_at(seed, "linear probe"))
    weight = torch.zeros(num_classes, train_NZ.shape[1], dtype=train_NZ.dtype, requires_grad=True)
    bias = torch.zeros(num_classes, dtype=train_NZ.dtype, requires_grad=True)
    optimizer = torch.optim.Adam([weight, bias], lr=learning_rate)
    with torch.enable_grad():
        for _ in range(epochs):
            for chosen_R in torch.randperm(len(train_NZ), generator=generator).split(rows):
                loss = F.cross_entropy(F.linear(train_NZ[chosen_R], weight, bias), train_labels_N[chosen_R])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    right_N = F.linear(test_NZ, weight, bias).argmax(-1) == test_labels_N
    known = {
        **protocol,
        "probe": "one dense layer on detached latents, Adam, softmax cross-entropy",
        "width": train_NZ.shape[1],
        "train_count": len(train_NZ),
        "epochs": epochs,
        "rows": rows,
        "learning_rate": learning_rate,
        "seed": seed,
    }
    return average("linear_probe_accuracy", 100.0 * right_N.double(), unit="%", better="higher", protocol=known)


def _checked(latents: Tensor, labels_N: Tensor, num_classes: int, split: str) -> tuple[Tensor, Tensor]:
    if len(latents) == 0 or labels_N.shape != latents.shape[:1]:
        shapes = f"{tuple(latents.shape)} and {tuple(labels_N.shape)}"
        raise BadInput(f"{split}: latents and labels have shapes {shapes}; must be [N, ...] and [N], N at least 1")
    if labels_N.dtype != torch.int64 or not 0 <= int(labels_N.min()) <= int(labels_N.max()) < num_classes:
        raise BadInput(
            f"{split}: labels are {labels_N.dtype} from {labels_N.min()} to {labels_N.max()}; "
            f"must be int64 from 0 to {num_classes - 1}"
        )
    latents_NZ = latents.detach().flatten(1).cpu()
    if not latents_NZ.isfinite().all():
        raise BadInput(f"{split}: latents hold numbers that are not finite")
    return latents_NZ if latents_NZ.dtype == torch.float64 else latents_NZ.float(), labels_N.cpu()
