"""Reconstruction by hand, and against the distributions whose nats they are."""

import pytest
import torch
from torch.distributions import Bernoulli

from data_pipeline.config import BadInput
from evals.metrics.reconstruction import accuracy, bernoulli_nats, squared_error


def test_squared_error_by_hand() -> None:
    x = torch.tensor([[[0.0, 1.0]], [[2.0, 2.0]]])
    made = torch.tensor([[[1.0, 1.0]], [[0.0, 5.0]]])
    by_example = squared_error([(x, made)], per="example", decoding="mean", protocol={"split": "test"})
    assert (by_example.value, by_example.stderr, by_example.count) == (7.0, 6.0, 2)
    assert by_example.protocol == {"split": "test", "decoding": "mean", "per": "example"}
    by_dimension = squared_error(
        zip(x.split(1), made.split(1), strict=True), per="dimension", decoding="mean", protocol={}
    )
    assert (by_dimension.value, by_dimension.stderr) == (3.5, 3.0)


def test_bernoulli_nats_are_those_of_the_distribution() -> None:
    x, logits = torch.rand(9, 4, 4, dtype=torch.float64).round(), torch.randn(9, 4, 4, dtype=torch.float64)
    found = bernoulli_nats(zip(x.split(2), logits.split(2), strict=True), decoding="mean", protocol={})
    expected = -Bernoulli(logits=logits).log_prob(x).flatten(1).sum(-1)
    assert found.value == pytest.approx(float(expected.mean()), abs=1e-12)
    assert found.stderr == pytest.approx(float(expected.std()) / 3, abs=1e-12)
    sure = bernoulli_nats([(torch.ones(1, 3), torch.full((1, 3), -1000.0))], decoding="mean", protocol={})
    assert sure.value == 3000


def test_accuracy_by_hand() -> None:
    truth = torch.tensor([[1, 2, 3, 4], [5, 6, 0, 0]])
    made = torch.tensor([[1, 2, 9, 4], [5, 6, 7, 0]])
    right, exact = accuracy([(truth, made)], decoding="greedy", padding=0, protocol={})
    assert (right.value, exact.value) == ((75 + 100) / 2, 50)
    right, exact = accuracy([(truth, made)], decoding="greedy", protocol={})
    assert (right.value, exact.value) == (75, 0)
    assert right.protocol["decoding"] == "greedy"


def test_bad_input() -> None:
    with pytest.raises(BadInput, match="must be equal"):
        squared_error([(torch.zeros(2, 3), torch.zeros(2, 1))], per="example", decoding="mean", protocol={})
    with pytest.raises(BadInput, match="in \\[0, 1\\]"):
        bernoulli_nats([(torch.full((1, 2), 255.0), torch.zeros(1, 2))], decoding="mean", protocol={})
    with pytest.raises(BadInput, match="an example holds only padding 0"):
        accuracy([(torch.tensor([[1], [0]]), torch.tensor([[1], [0]]))], decoding="greedy", padding=0, protocol={})
