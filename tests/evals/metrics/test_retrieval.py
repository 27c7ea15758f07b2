"""Retrieval against brute force over all orders of tied documents.

Shape legend: N documents, D width of a code.
"""

import itertools
import math
from fractions import Fraction
from typing import Any

import pytest
import torch
from sklearn.metrics import pairwise_distances
from torch import Tensor

from data_pipeline.config import BadInput
from evals.metrics import retrieval
from evals.metrics.retrieval import Distance, expected_hits, retrieval_precision

COUNT = 60
METRICS: dict[Distance, str] = {"cosine": "cosine", "euclidean": "euclidean", "hamming": "hamming"}


def random_codes(distance: Distance, count: int = COUNT) -> Tensor:
    return torch.randint(0, 2, (count, 6)).double() if distance == "hamming" else torch.randn(count, 6).double()


def brute_force(codes_ND: Tensor, labels_N: Tensor, distance: Distance, k: int) -> list[float]:
    """Per cent, for each document against the others, with distances of scikit-learn; ties count by their share."""
    table = pairwise_distances(
        codes_ND.numpy().astype(bool if distance == "hamming" else float), metric=METRICS[distance]
    )
    found = []
    for i in range(len(codes_ND)):
        others = sorted(
            (round(float(table[i, j]), 12), bool(labels_N[j] == labels_N[i])) for j in range(len(codes_ND)) if j != i
        )
        reach = others[k - 1][0]
        nearer = [relevant for far, relevant in others if far < reach]
        tied = [relevant for far, relevant in others if far == reach]
        found.append(100 * (sum(nearer) + (k - len(nearer)) * sum(tied) / len(tied)) / k)
    return found


@pytest.mark.parametrize("distance", sorted(METRICS))
def test_precision_against_brute_force(distance: Distance) -> None:
    codes_ND, labels_N = random_codes(distance), torch.randint(0, 4, (COUNT,))
    codes_ND[1::2] = codes_ND[::2]  # every document twice: ties everywhere
    ranks = (1, 2, 7, COUNT - 1)
    for metric, k in zip(
        retrieval_precision(codes_ND, labels_N, distance=distance, at=ranks, protocol={}), ranks, strict=True
    ):
        per_query = brute_force(codes_ND, labels_N, distance, k)
        assert metric.name == f"precision@{k}"
        assert metric.value == pytest.approx(sum(per_query) / COUNT, abs=1e-9)
        assert metric.count == COUNT


def test_ranks_within_ties_are_means_over_all_orders() -> None:
    far = [0, 1, 1, 1, 2, 2]
    relevant = [False, True, False, True, True, False]
    orders = [order for order in itertools.permutations(range(6)) if [far[place] for place in order] == sorted(far)]
    expected = [
        float(Fraction(sum(relevant[place] for order in orders for place in order[:k]), len(orders)))
        for k in range(1, 7)
    ]
    shuffled = torch.randperm(6)
    found = expected_hits(torch.tensor([far])[:, shuffled], torch.tensor([relevant])[:, shuffled])
    torch.testing.assert_close(found, torch.tensor([expected], dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("distance", sorted(METRICS))
def test_order_and_blocks_of_documents_change_nothing(distance: Distance, monkeypatch: pytest.MonkeyPatch) -> None:
    codes_ND, labels_N = random_codes(distance).repeat(2, 1), torch.randint(0, 4, (2 * COUNT,))
    how: dict[str, Any] = {"distance": distance, "at": (1, 5, 50), "recalls": (0.1, 0.5, 1.0), "protocol": {}}
    found = retrieval_precision(codes_ND, labels_N, **how)
    order_N = torch.randperm(len(codes_ND))
    shuffled = retrieval_precision(codes_ND[order_N], labels_N[order_N], **how)
    assert [metric.value for metric in shuffled] == pytest.approx([metric.value for metric in found], abs=1e-9)
    for block in (1, 500, 10_000):
        monkeypatch.setattr(retrieval, "BLOCK", block)
        assert retrieval_precision(codes_ND, labels_N, **how) == found


def test_precision_at_a_recall_by_hand() -> None:
    """From 0 the documents come at 1 (relevant), 2, 3, 4 (relevant): half of them at rank 1, all at rank 4."""
    documents = torch.tensor([[1.0], [-2.0], [3.0], [-4.0]])
    labels_N = torch.tensor([7, 1, 2, 7])
    queries = (torch.tensor([[0.0], [0.0]]), torch.tensor([7, 99]))
    metrics = retrieval_precision(
        documents, labels_N, queries=queries, distance="euclidean", at=(1, 2), recalls=(0.5, 0.51, 1.0), protocol={}
    )
    found = {metric.name: (metric.value, metric.count) for metric in metrics}
    assert found["precision@1"] == (50, 2)
    assert found["precision@2"] == (25, 2)
    assert found["precision@recall 0.5"] == (100, 1)  # nothing is relevant to label 99
    assert found["precision@recall 0.51"] == (50, 1)
    assert found["precision@recall 1"] == (50, 1)
    assert metrics[0].protocol["candidates"] == 4


def test_a_document_does_not_find_itself() -> None:
    codes_ND = torch.eye(4)
    (found,) = retrieval_precision(codes_ND, torch.tensor([0, 1, 2, 3]), distance="cosine", at=(1,), protocol={})
    assert found.value == 0


def test_codes_that_know_nothing_score_the_prior_of_their_class() -> None:
    generator = torch.Generator().manual_seed(0)
    labels_N = torch.arange(2000) % 5
    codes_ND = torch.randn(2000, 8, generator=generator)
    (found,) = retrieval_precision(codes_ND, labels_N, distance="cosine", at=(1,), protocol={})
    assert abs(found.value - 100 * 399 / 1999) < 400 * math.sqrt(0.2 * 0.8 / 2000)
    knowing = codes_ND + 100 * torch.nn.functional.one_hot(labels_N, 8)
    assert retrieval_precision(knowing, labels_N, distance="cosine", at=(399,), protocol={})[0].value == 100


def test_length_matters_to_euclid_and_not_to_cosine() -> None:
    documents, labels_N = torch.tensor([[1.0, 0.0], [10.0, 1.0]]), torch.tensor([0, 1])
    queries = (torch.tensor([[9.0, 0.0]]), torch.tensor([0]))
    how: dict[str, Any] = {"queries": queries, "at": (1,), "protocol": {}}
    assert retrieval_precision(documents, labels_N, distance="cosine", **how)[0].value == 100
    assert retrieval_precision(documents, labels_N, distance="euclidean", **how)[0].value == 0


@pytest.mark.parametrize(
    ("codes", "settings", "says"),
    [
        (torch.ones(3, 2), {"at": (3,)}, "between 1 and 2"),
        (torch.ones(3, 2), {"recalls": (0.0,), "at": ()}, "above 0"),
        (torch.zeros(3, 2), {}, "code 0 is zero"),
        (torch.full((3, 2), 2.0), {"distance": "hamming"}, "other than 0 and 1"),
        (torch.full((3, 2), torch.nan), {}, "not finite"),
        (torch.ones(3, 2), {"queries": (torch.ones(1, 3), torch.zeros(1).long())}, "2 wide, queries 3"),
        (torch.ones(4, 2), {}, r"must be \[N, D\] and \[N\]"),
    ],
)
def test_bad_input(codes: Tensor, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        retrieval_precision(
            codes, torch.zeros(3).long(), **{"distance": "cosine", "at": (1,), "protocol": {}, **settings}
        )
