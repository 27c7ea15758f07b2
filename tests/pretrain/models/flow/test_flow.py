"""Whole flows: densities that integrate to one, latents there and back, levels bounded by what a sum says.

Shape legend: R rows, D values of a row, K draws of noise, G points of a grid.
"""

import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from data_pipeline.batch import VectorBatch
from data_pipeline.config import BadInput
from data_pipeline.digits import DigitsConfig
from data_pipeline.points import EightGaussiansConfig
from pretrain.bijections.bijection import Composition
from pretrain.bijections.invertible_convolution import InvertibleConvolution
from pretrain.bijections.planar import Planar
from pretrain.contract import capabilities
from pretrain.models.flow import flow
from pretrain.models.flow.flow import DensityFlow, DequantizedFlow, Flow, FlowConfig
from tests.pretrain.bijections.identities import EXACT, inverse_error, log_det_error, random_weights

BIJECTIONS: dict[str, dict[str, Any]] = {
    "planar": {"num_layers": 4},
    "nice": {"num_layers": 3, "hidden_widths": [6]},
    "realnvp": {"num_layers": 3, "hidden_widths": [6]},
    "maf": {"num_layers": 2, "hidden_widths": [6]},
    "iaf": {"num_layers": 2, "hidden_widths": [6]},
    "realnvp_images": {"num_scales": 3, "hidden_channels": 4},
    "glow": {"num_scales": 2, "num_steps": 2, "hidden_channels": 4},
}
OF_VECTORS = ("planar", "nice", "realnvp", "maf", "iaf")
every_kind = pytest.mark.parametrize("kind", BIJECTIONS)


def configure(kind: str, row_shape: tuple[int, ...], **settings: Any) -> FlowConfig:
    return FlowConfig(kind="flow", row_shape=row_shape, bijections={"kind": kind, **BIJECTIONS[kind]}, **settings)


def build(kind: str, row_shape: tuple[int, ...], std: float = 0.4, **settings: Any) -> Flow:
    model = configure(kind, row_shape, **settings).build()
    random_weights(model, std)
    return model


def batch_of(values_RD: Tensor) -> VectorBatch:
    rows = len(values_RD)
    return VectorBatch(values_RD, torch.zeros(rows, dtype=torch.int64), torch.arange(rows))


def shape_of(kind: str) -> tuple[int, ...]:
    return (5,) if kind in OF_VECTORS else (1, 8, 4)


@every_kind
def test_the_composed_bijection_has_its_inverse_and_its_log_determinant(kind: str) -> None:
    model = build(kind, shape_of(kind), std=0.2)
    x_RD = torch.randn(3, math.prod(shape_of(kind)), dtype=torch.float64)
    assert inverse_error(model.bijection, x_RD) < EXACT
    assert log_det_error(model.bijection, x_RD) < EXACT
    latents_RD = model.encode(batch_of(x_RD))
    assert latents_RD.shape == x_RD.shape
    assert torch.allclose(model.decode(latents_RD), x_RD, rtol=0, atol=EXACT)


@every_kind
def test_nothing_of_a_row_is_lost_or_read_by_another(kind: str) -> None:
    """Every value of a row moves its latents, and no other row's."""
    model = build(kind, shape_of(kind), std=0.2)
    x_RD = torch.randn(2, math.prod(shape_of(kind)), dtype=torch.float64)
    slope = torch.autograd.functional.jacobian(lambda x: model.bijection(x)[0], x_RD)
    assert float(slope[0, :, 1].abs().max()) == 0
    assert float(slope[0, :, 0].abs().amax(0).min()) > 0


def integral(model: DensityFlow, edge: float, points: int) -> float:
    """Of the density over a square, by the mid-point rule."""
    step = 2 * edge / points
    line_G = -edge + step * (torch.arange(points, dtype=torch.float64) + 0.5)
    with torch.no_grad():
        return float(model.log_prob(batch_of(torch.cartesian_prod(line_G, line_G))).exp().sum() * step**2)


@pytest.mark.parametrize("base", ["normal", "logistic"])
@pytest.mark.parametrize("kind", OF_VECTORS)
def test_a_density_of_the_plane_integrates_to_one(kind: str, base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a sum over a grid, whose error is the kinks of the ReLUs, and what of the mass lies beyond its edge: so the
    weights are drawn from a seed of which little does."""
    torch.manual_seed(0)
    model = build(kind, (2,), std=0.2, base=base)
    assert isinstance(model, DensityFlow)
    edge, points = (14.0, 700) if base == "normal" else (50.0, 1000)
    assert integral(model, edge, points) == pytest.approx(1.0, abs=1e-3)
    right = flow.standard_normal_log_prob, flow.standard_logistic_log_prob
    monkeypatch.setattr(flow, "standard_normal_log_prob", lambda z: right[0](z) + 0.01)
    monkeypatch.setattr(flow, "standard_logistic_log_prob", lambda z: 1.01 * right[1](z))
    assert abs(integral(model, edge, points) - 1.0) > 5e-3, "another density of the base"
    monkeypatch.undo()
    torch.manual_seed(0)
    known = build(kind, (2,), std=0.2, base=base)
    assert isinstance(known, DensityFlow)
    composed = Composition.forward
    monkeypatch.setattr(Composition, "forward", lambda self, x: (composed(self, x)[0], x.new_zeros(len(x))))
    assert abs(integral(known, edge, points) - 1.0) > 5e-3, "without the flow's determinant"


@pytest.mark.parametrize("base", ["normal", "logistic"])
def test_samples_have_the_density(base: str) -> None:
    """Of a MAF: counts of a grid's cells against the density's sum over each, by chi-square at four deviations."""
    torch.manual_seed(0)
    model, many, cells, fine = build("maf", (2,), std=0.3, base=base), 100_000, 8, 40
    samples_N2 = model.sample(many)
    edge = 3.0
    places_N2 = ((samples_N2 + edge) / (2 * edge) * cells).floor().long()
    inside_N = ((places_N2 >= 0) & (places_N2 < cells)).all(1)
    counts = torch.bincount(places_N2[inside_N] @ torch.tensor([cells, 1]), minlength=cells**2).double()
    step = 2 * edge / (cells * fine)
    line_G = -edge + step * (torch.arange(cells * fine, dtype=torch.float64) + 0.5)
    p = model.log_prob(batch_of(torch.cartesian_prod(line_G, line_G))).exp().detach() * step**2
    expected = many * p.view(cells, fine, cells, fine).sum((1, 3)).flatten()

    def misfit(expected: Tensor) -> float:
        kept = expected >= 5
        statistic = ((counts[kept] - expected[kept]).square() / expected[kept]).sum()
        return float((statistic - kept.sum()) / math.sqrt(2 * int(kept.sum())))

    assert misfit(expected) < 4
    assert misfit(expected.view(cells, cells).T.flatten()) > 4, "axes exchanged"


@pytest.mark.parametrize("margin", [None, 0.05])
def test_the_bound_of_levels_is_the_log_of_a_mean_over_noise(
    margin: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the density's integral over a level's square; one draw lies below it, and many reach it."""
    torch.manual_seed(0)
    model = build("realnvp", (2,), levels=4, logit_margin=margin)
    assert isinstance(model, DequantizedFlow)
    levels_R2 = torch.cartesian_prod(*[torch.arange(4, dtype=torch.float64) / 3] * 2)

    def exact() -> Tensor:
        fine = (torch.arange(60, dtype=torch.float64) + 0.5) / 60
        noise_G2 = torch.cartesian_prod(fine, fine)
        y = ((3 * levels_R2)[:, None] + noise_G2) / 4
        z, log_det = model.bijection(y.flatten(0, 1))
        return (flow.standard_normal_log_prob(z) + log_det).view(16, -1).exp().mean(1).detach() / 16

    p_R = exact()
    assert 0.02 < float(p_R.sum()) <= 1, "what lies outside of the square is no level"
    draws = 1500
    with torch.no_grad():
        single_KR = torch.stack([model.log_prob_bound(batch_of(levels_R2), 1) for _ in range(draws)])
        error_R = 4 * single_KR.exp().std(0) / math.sqrt(draws) + 1e-4 * p_R
        assert bool(((single_KR.exp().mean(0) - p_R).abs() < error_R).all())
        assert bool((single_KR.mean(0) < p_R.log()).all())
        many_R = model.log_prob_bound(batch_of(levels_R2), draws)
        assert bool(((many_R.exp() - p_R).abs() < error_R).all())
        right = flow.dequantize
        monkeypatch.setattr(flow, "dequantize", lambda *given: (right(*given)[0], 0.0))
        assert bool(((model.log_prob_bound(batch_of(levels_R2), draws).exp() - p_R).abs() > error_R).all())


def test_latents_of_levels_give_the_levels_back() -> None:
    model = build("glow", (1, 8, 4), std=0.2, levels=17, logit_margin=0.01)
    values_RD = torch.randint(0, 17, (3, 32)).double() / 16
    assert torch.allclose(model.decode(model.encode(batch_of(values_RD))), values_RD, rtol=0, atol=EXACT)
    samples_ND = model.sample(5)
    assert samples_ND.shape == (5, 32)
    assert torch.allclose((16 * samples_ND).round(), 16 * samples_ND)
    assert float(samples_ND.min()) >= 0
    assert float(samples_ND.max()) <= 1


def test_levels_are_bounded_and_numbers_are_known_exactly() -> None:
    assert capabilities(DensityFlow).evaluate == "exact"
    assert capabilities(DequantizedFlow).evaluate == "bound"


@pytest.mark.parametrize(
    ("kind", "shape", "told"),
    [
        ("glow", (64,), "need channels, height and width"),
        ("glow", (1, 6, 8), "must be multiples of 4"),
        ("realnvp_images", (1, 7, 7), "must be multiples of 4"),
        ("maf", (1,), "must have at least 2"),
        ("realnvp_images", (1, 4, 4), "num_scales is 3: it leaves one pixel of images of 4 x 4, .* choose at most 2"),
        ("realnvp_images", (1, 1, 1), "must be multiples of 4"),
    ],
)
def test_shapes_that_cannot_be(kind: str, shape: tuple[int, ...], told: str) -> None:
    with pytest.raises(BadInput, match=told):
        configure(kind, shape).build()


def test_a_checkerboard_needs_two_pixels() -> None:
    for num_scales, side, told in ((4, 8, "choose at most 3"), (1, 1, "choose bijections of kind realnvp")):
        bijections = {"kind": "realnvp_images", "num_scales": num_scales, "hidden_channels": 2}
        config = FlowConfig(kind="flow", row_shape=(1, side, side), bijections=bijections)
        with pytest.raises(BadInput, match=told):
            config.build()
        config.model_copy(update={"row_shape": (1, side, 2 * side)}).build()


def test_sizes_that_are_none() -> None:
    with pytest.raises(ValidationError, match="row_shape"):
        configure("maf", (0,))
    for width in (0, -1):
        with pytest.raises(ValidationError, match="hidden_widths"):
            FlowConfig(
                kind="flow", row_shape=(2,), bijections=BIJECTIONS["maf"] | {"kind": "maf", "hidden_widths": [width]}
            )


def test_a_density_is_not_of_levels() -> None:
    """Where values are few and certain a density of them has no bound."""
    for pixels, levels in (("grey", 17), ("threshold", 2)):
        data = DigitsConfig(kind="digits", pixels=pixels)
        assert f"dequantize them (model.levels={levels})" in str(configure("maf", (64,)).problem(data))
        assert configure("maf", (64,), levels=levels).problem(data) is None
    assert configure("maf", (2,)).problem(EightGaussiansConfig(kind="eight_gaussians")) is None


def test_a_logit_needs_levels() -> None:
    with pytest.raises(ValidationError, match="the logit is of dequantized data"):
        configure("maf", (2,), logit_margin=0.1)


@every_kind
def test_operations_of_a_row(kind: str) -> None:
    """As torch counts them; Glow makes each of its weights of three matrices, once a batch."""
    model, rows = build(kind, shape_of(kind)), 3
    x_RD = torch.randn(rows, math.prod(shape_of(kind)), dtype=torch.float64)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.bijection(x_RD)
    weights = 2 * 2 * sum(len(m.lower_CC) ** 3 for m in model.modules() if isinstance(m, InvertibleConvolution))
    planes = 2 * sum(m.w_D.numel() for m in model.modules() if isinstance(m, Planar))
    assert counter.get_total_flops() - weights == pytest.approx(rows * model.flops_per_count(), abs=rows * planes)
