"""Means over rows, whatever the batches were."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from data_pipeline.config import BadInput
from evals.metrics.average import average
from evals.metrics.batches import Rows, in_blocks
from evals.metrics.bounds import importance_weighted
from evals.metrics.feature_network import features_of, random_feature_network
from evals.metrics.frechet import fit_gaussian
from evals.metrics.reconstruction import bernoulli_nats

ROWS = 700
CUTS = (1, 7, 32, 699, 700)


def mean_of(rows: Rows) -> object:
    return average("x", rows, unit="nats", better="lower", protocol={"of": "test"})


def gaussian_of(rows: Rows) -> object:
    gaussian = fit_gaussian(rows)
    return gaussian.mean_F.tolist(), gaussian.covariance_FF.tolist(), gaussian.count


def features(rows: Rows) -> object:
    return torch.cat(list(features_of(random_feature_network(1, seed=3), rows))).tolist()


@pytest.mark.parametrize(
    ("result", "values"),
    [
        (mean_of, torch.randn(ROWS, dtype=torch.float64) * 1e3),
        (gaussian_of, torch.randn(ROWS, 5) + 100),
        (features, torch.rand(ROWS, 1, 8, 8)),
    ],
)
def test_batches_change_no_bit(result: Callable[[Rows], object], values: Tensor) -> None:
    whole = result(values)
    for cut in CUTS:
        assert result(iter(values.split(cut))) == whole, cut


def test_importance_weights_and_reconstructions_too() -> None:
    for _ in range(10):
        log_w_KR, logits = torch.randn(6, ROWS), torch.randn(ROWS, 7)
        bound = importance_weighted([log_w_KR], protocol={})
        nats = bernoulli_nats([(logits.sigmoid(), logits)], decoding="mean", protocol={})
        for cut in CUTS:
            pairs = zip(logits.sigmoid().split(cut), logits.split(cut), strict=True)
            assert importance_weighted(log_w_KR.split(cut, dim=1), protocol={}) == bound
            assert bernoulli_nats(pairs, decoding="mean", protocol={}) == nats


def test_blocks_hold_every_row_once_in_order() -> None:
    values = torch.arange(50)
    for cut in (1, 3, 8, 20, 50):
        blocks = list(in_blocks(values.split(cut), 8))
        assert [len(block) for block in blocks] == [8] * 6 + [2]
        assert torch.cat(blocks).tolist() == list(range(50))


def test_mean_and_error_by_hand() -> None:
    found = average("x", torch.tensor([1.0, 2.0, 6.0]), unit="nats", better="lower", protocol={"split": "test"})
    assert (found.value, found.count, found.unit, found.better) == (3.0, 3, "nats", "lower")
    assert found.stderr == math.sqrt((4 + 1 + 9) / 2 / 3)
    assert found.protocol == {"split": "test"}


def test_what_has_no_error() -> None:
    assert average("x", torch.tensor([2.0]), unit="", better="lower", protocol={}).stderr is None
    infinite = average("x", torch.tensor([1.0, torch.inf]), unit="", better="lower", protocol={})
    assert (infinite.value, infinite.stderr) == (math.inf, None)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ([], "no rows"),
        ([torch.tensor([1.0, 2.0]), torch.tensor([torch.nan])], "row 2 is not a number"),
        ([torch.ones(2, 2)], r"shape \(2, 2\)"),
    ],
)
def test_bad_rows(values: list[Tensor], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        average("x", values, unit="", better="lower", protocol={})
