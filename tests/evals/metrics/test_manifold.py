"""Precision and recall against their definition, point by point.

Shape legend: N, M points, F features.
"""

import itertools

import pytest
import torch
from torch import Tensor

from data_pipeline.config import BadInput
from evals.metrics import manifold
from evals.metrics.manifold import precision_recall, radii, within


def by_definition(points_MF: Tensor, centres_NF: Tensor, neighbours: int) -> list[bool]:
    def distance(a: Tensor, b: Tensor) -> float:
        return float((a - b).square().sum().sqrt())

    reach = [
        sorted(distance(centre, other) for j, other in enumerate(centres_NF) if j != i)[neighbours - 1]
        for i, centre in enumerate(centres_NF)
    ]
    return [any(distance(p, c) <= r for c, r in zip(centres_NF, reach, strict=True)) for p in points_MF]


@pytest.mark.parametrize("neighbours", [1, 3])
def test_shares_against_the_definition(neighbours: int) -> None:
    reference_NF = torch.randint(0, 6, (40, 2)).double()  # many equal points and equal distances
    generated_MF = torch.randint(2, 9, (30, 2)).double()
    precision, recall = precision_recall(
        reference_NF, generated_MF, neighbours=neighbours, features="none", protocol={"split": "test"}
    )
    assert precision.value == pytest.approx(sum(by_definition(generated_MF, reference_NF, neighbours)) / 30, abs=1e-12)
    assert recall.value == pytest.approx(sum(by_definition(reference_NF, generated_MF, neighbours)) / 40, abs=1e-12)
    assert 0 < precision.value < 1
    assert precision.value != recall.value
    assert precision.protocol["neighbours"] == neighbours


def test_blocks_and_batches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    reference_NF, generated_MF = torch.randn(2, 150, 3, dtype=torch.float64)
    found = precision_recall(reference_NF, generated_MF, features="none", protocol={})
    for block in (1, 151, 1000):
        monkeypatch.setattr(manifold, "BLOCK", block)
        cut = precision_recall(reference_NF.split(7), generated_MF.split(11), features="none", protocol={})
        assert cut == found


def test_radii_by_hand() -> None:
    """On a line at 0, 1, 3, 3: a twin at the same place is a neighbour, a point itself is not."""
    line = torch.tensor([[0.0], [1.0], [3.0], [3.0]], dtype=torch.float64)
    assert radii(line, 1).tolist() == [1, 1, 0, 0]
    assert radii(line, 2).tolist() == [3, 2, 2, 2]
    inside = within(torch.tensor([[-1.0], [2.0], [2.5], [3.0]]).double(), line, radii(line, 1))
    assert inside.tolist() == [True, True, False, True]


def test_a_lost_half_costs_recall_and_noise_costs_precision() -> None:
    generator = torch.Generator().manual_seed(0)
    centres = torch.tensor(list(itertools.product([0.0, 10.0], repeat=2))).double()
    data = (centres.repeat(100, 1) + torch.randn(400, 2, dtype=torch.float64, generator=generator)).split(200)
    precision, recall = precision_recall(data[0], data[1][data[1][:, 0] < 5], features="none", protocol={})
    assert precision.value > 0.9
    assert 0.45 < recall.value < 0.5
    wild = torch.cat([data[1], 50 + data[1]])
    precision, recall = precision_recall(data[0], wild, features="none", protocol={})
    assert 0.45 < precision.value < 0.5
    assert recall.value > 0.9


def test_bad_points() -> None:
    with pytest.raises(BadInput, match="below both"):
        precision_recall(torch.randn(10, 2), torch.randn(3, 2), neighbours=3, features="none", protocol={})
    with pytest.raises(BadInput, match="not finite"):
        precision_recall(torch.randn(10, 2), torch.full((9, 2), torch.inf), features="none", protocol={})
