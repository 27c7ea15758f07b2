"""The probe against the best that a linear reader can do.

Shape legend: N latents, Z width of a latent.
"""

import math

import pytest
import torch
from torch import Tensor

from data_pipeline.config import BadInput
from evals.metrics.linear_probe import linear_probe


def two_gaussians(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Classes 0.8 on either side of 0.7 in one of five directions: Bayes is linear, its accuracy Phi(0.8)."""
    generator = torch.Generator().manual_seed(seed)
    labels_N = torch.randint(0, 2, (count,), generator=generator)
    latents_NZ = torch.randn(count, 5, dtype=torch.float64, generator=generator)
    latents_NZ[:, 2] += 0.8 * (2 * labels_N - 1) + 0.7
    return latents_NZ, labels_N


def test_accuracy_reaches_that_of_bayes_and_no_more() -> None:
    found = linear_probe(
        two_gaussians(4000, 1),
        two_gaussians(4000, 2),
        num_classes=2,
        seed=0,
        epochs=10,
        learning_rate=1e-2,
        protocol={"split": "test"},
    )
    bayes = 50 * (1 + math.erf(0.8 / math.sqrt(2)))
    assert found.stderr is not None
    assert abs(found.value - bayes) < 4 * found.stderr
    share = found.value / 100
    assert found.stderr == pytest.approx(100 * math.sqrt(share * (1 - share) / 3999))
    assert (found.unit, found.count) == ("%", 4000)
    assert found.protocol["seed"] == 0


def exclusive_or(count: int, seed: int) -> tuple[Tensor, Tensor]:
    corners_NZ = torch.randint(0, 2, (count, 2), generator=torch.Generator().manual_seed(seed))
    return corners_NZ.float() - 0.5, corners_NZ[:, 0] ^ corners_NZ[:, 1]


def test_one_layer_cannot_read_an_exclusive_or() -> None:
    """At most three of the four corners; two layers would read all."""
    found = linear_probe(exclusive_or(400, 0), exclusive_or(400, 1), num_classes=2, seed=0, epochs=30, protocol={})
    assert found.value < 80
    latents_NZ, labels_N = exclusive_or(400, 0)
    wider = torch.cat([latents_NZ, latents_NZ.prod(-1, keepdim=True)], -1)
    assert linear_probe((wider, labels_N), (wider, labels_N), num_classes=2, seed=0, protocol={}).value == 100


def test_it_is_a_function_of_the_seed_and_leaves_the_encoder_alone() -> None:
    weight = torch.randn(3, 3, requires_grad=True)
    latents_NZ, labels_N = torch.randn(200, 3) @ weight, torch.randint(0, 3, (200,))
    before = torch.random.get_rng_state()

    def probe(seed: int) -> float:
        split = (latents_NZ, labels_N)
        return linear_probe(split, split, num_classes=3, seed=seed, epochs=1, learning_rate=0.3, protocol={}).value

    found = [probe(seed) for seed in (0, 0, 1, 2, 3)]
    assert found[0] == found[1]
    assert len(set(found)) > 1
    assert weight.grad is None
    assert torch.equal(torch.random.get_rng_state(), before)


def test_shapes_of_latents_do_not_matter() -> None:
    latents, labels_N = torch.randn(100, 2, 3, 1), torch.randint(0, 2, (100,))
    flat = (latents.flatten(1), labels_N)
    how = {"num_classes": 2, "seed": 0, "epochs": 2, "protocol": {}}
    assert linear_probe((latents, labels_N), flat, **how) == linear_probe(flat, flat, **how)


@pytest.mark.parametrize(
    ("latents", "labels", "says"),
    [
        (torch.zeros(4, 3), torch.tensor([0, 1, 2, 0]), "from 0 to 2; must be int64 from 0 to 1"),
        (torch.zeros(4, 3), torch.zeros(4), "float32"),
        (torch.zeros(4, 3), torch.zeros(3).long(), r"must be \[N, ...\] and \[N\]"),
        (torch.full((4, 3), torch.inf), torch.zeros(4).long(), "not finite"),
        (torch.zeros(4, 2), torch.zeros(4).long(), "2 wide in train and 3 in test"),
    ],
)
def test_bad_input(latents: Tensor, labels: Tensor, says: str) -> None:
    good = (torch.zeros(4, 3), torch.tensor([0, 1, 1, 0]))
    with pytest.raises(BadInput, match=says):
        linear_probe((latents, labels), good, num_classes=2, seed=0, protocol={})


@pytest.mark.parametrize("settings", [{"rows": 0}, {"epochs": -1}])
def test_settings_that_no_probe_can_have(settings: dict[str, int]) -> None:
    good = (torch.zeros(4, 3), torch.tensor([0, 1, 1, 0]))
    with pytest.raises(BadInput, match=r"rows and classes must be at least 1, epochs 0"):
        linear_probe(good, good, num_classes=2, seed=0, protocol={}, **settings)
