"""The Frechet distance of Gaussians in closed form.

Shape legend: N rows, F features.
"""

import math

import pytest
import torch
from scipy import linalg
from torch import Tensor

from data_pipeline.config import BadInput
from evals.metrics import frechet
from evals.metrics.frechet import Gaussian, fit_gaussian, frechet_distance, squared_frechet

FEATURES = 6


def covariance() -> Tensor:
    root_FF = torch.randn(FEATURES, FEATURES, dtype=torch.float64)
    return root_FF @ root_FF.T


def gaussian(mean_F: Tensor, covariance_FF: Tensor) -> Gaussian:
    return Gaussian(mean_F, covariance_FF, 100)


def test_commuting_covariances_have_a_closed_form() -> None:
    """Of the same eigenvectors: |m_1 - m_2|^2 + sum (sqrt a - sqrt b)^2."""
    vectors_FF = torch.linalg.qr(torch.randn(FEATURES, FEATURES, dtype=torch.float64)).Q
    a_F, b_F = torch.rand(2, FEATURES, dtype=torch.float64)
    b_F[0] = 0.0
    one_F, other_F = torch.randn(2, FEATURES, dtype=torch.float64)
    found = squared_frechet(
        gaussian(one_F, vectors_FF * a_F @ vectors_FF.T), gaussian(other_F, vectors_FF * b_F @ vectors_FF.T)
    )
    closed = (one_F - other_F).square().sum() + (a_F.sqrt() - b_F.sqrt()).square().sum()
    assert found == pytest.approx(float(closed), abs=1e-6)


def test_any_covariances_against_the_matrix_square_root() -> None:
    one_F, other_F = torch.randn(2, FEATURES, dtype=torch.float64)
    one_FF, other_FF = covariance(), covariance()
    root = linalg.sqrtm(one_FF.numpy() @ other_FF.numpy()).real.trace()
    expected = float((one_F - other_F).square().sum() + one_FF.trace() + other_FF.trace()) - 2 * root
    found = squared_frechet(gaussian(one_F, one_FF), gaussian(other_F, other_FF))
    assert found == pytest.approx(expected, abs=1e-10)
    assert squared_frechet(gaussian(other_F, other_FF), gaussian(one_F, one_FF)) == pytest.approx(found, abs=1e-10)


def test_a_set_is_at_no_distance_from_itself_and_at_its_shift_from_a_moved_one() -> None:
    features_NF = torch.randn(200, FEATURES, dtype=torch.float64) @ covariance()
    found = frechet_distance(features_NF, features_NF.flip(0), features="net", protocol={"split": "test"})
    assert found.value == pytest.approx(0, abs=1e-9)
    shift = frechet_distance(features_NF, features_NF + 2.0, features="net", protocol={})
    assert shift.value == pytest.approx(4.0 * FEATURES, abs=1e-9)
    assert found.protocol == {"split": "test", "features": "net", "reference_count": 200, "generated_count": 200}


def check_moments() -> None:
    features_NF = 1e3 + torch.randn(1300, FEATURES, dtype=torch.float64) @ covariance()
    fitted = fit_gaussian(features_NF.split(111))
    torch.testing.assert_close(fitted.mean_F, features_NF.mean(0), rtol=1e-12, atol=0)
    torch.testing.assert_close(fitted.covariance_FF, torch.cov(features_NF.T), rtol=1e-10, atol=1e-9)
    assert fitted.count == 1300


def test_moments_over_blocks_are_those_of_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    check_moments()
    monkeypatch.setattr(frechet, "Gaussian", lambda mean, cov, count: Gaussian(mean, cov * (count - 1) / count, count))
    with pytest.raises(AssertionError):
        check_moments()


def test_fewer_rows_than_features() -> None:
    features_NF = torch.randn(3, FEATURES, dtype=torch.float64)
    found = squared_frechet(fit_gaussian(features_NF), fit_gaussian(2 * features_NF))
    expected = features_NF.mean(0).square().sum() + torch.cov(features_NF.T).trace()
    assert found == pytest.approx(float(expected), abs=1e-6)
    assert math.isfinite(found)


def test_bad_features() -> None:
    good = torch.randn(10, FEATURES)
    with pytest.raises(BadInput, match="needs at least 2"):
        frechet_distance(good, good[:1], features="net", protocol={})
    with pytest.raises(BadInput, match="all finite"):
        frechet_distance(good, good / 0, features="net", protocol={})
    with pytest.raises(BadInput, match="6 and 5 features"):
        frechet_distance(good, good[:, :5], features="net", protocol={})
