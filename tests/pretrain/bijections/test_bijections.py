"""Every bijection in float64 on random weights: its inverse, and its log-determinant against autograd's Jacobian.

Each planted error must miss one of the two by far.

Shape legend: R rows, D values of a row.
"""

import copy
import secrets
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from data_pipeline.config import BadInput
from pretrain.bijections import coupling, masked, planar
from pretrain.bijections.actnorm import ActNorm
from pretrain.bijections.autoregressive import MaskedAutoregressive
from pretrain.bijections.bijection import Bijection, Composition, Inverse, Reverse
from pretrain.bijections.conditioners import convolutional, perceptron
from pretrain.bijections.coupling import (
    AdditiveCoupling,
    AffineCoupling,
    alternating,
    channel_halves,
    checkerboard,
    halves,
)
from pretrain.bijections.invertible_convolution import InvertibleConvolution
from pretrain.bijections.logit import Logit, dequantize, quantize
from pretrain.bijections.multiscale import Multiscale, Squeeze
from pretrain.bijections.planar import Planar
from tests.pretrain.bijections.identities import EXACT, inverse_error, jacobians, log_det_error, random_weights

ROWS = 3
IMAGE = (4, 2, 4)


@pytest.fixture(autouse=True)
def _fresh_seed() -> None:
    seed = secrets.randbits(31)
    print(f"torch.manual_seed({seed})")
    torch.manual_seed(seed)


def two_scales() -> Multiscale:
    """Of a [1, 4, 4] image: the first stage makes [4, 2, 2], of which two channels go on, the second [8, 1, 1]."""
    stages = [Composition([Squeeze(), ActNorm(4), InvertibleConvolution(4)]), Composition([Squeeze(), ActNorm(8)])]
    return Multiscale((1, 4, 4), stages, [(4, 2, 2), (8, 1, 1)])


CASES: dict[str, tuple[Callable[[], Bijection], tuple[int, ...]]] = {
    "additive, alternating": (lambda: AdditiveCoupling(alternating(5, 1), perceptron([5, 8, 5])), (5,)),
    "affine, first half": (lambda: AffineCoupling(halves(5, 0), perceptron([5, 8, 10])), (5,)),
    "affine, second half": (lambda: AffineCoupling(halves(5, 1), perceptron([5, 8, 10])), (5,)),
    "affine, checkerboard": (lambda: AffineCoupling(checkerboard(*IMAGE, 0), convolutional(4, 6, 8)), IMAGE),
    "affine, channels": (lambda: AffineCoupling(channel_halves(*IMAGE, 1), convolutional(4, 6, 8)), IMAGE),
    "additive, channels": (lambda: AdditiveCoupling(channel_halves(*IMAGE, 0), convolutional(4, 6, 4)), IMAGE),
    "actnorm of vectors": (lambda: ActNorm(5), (5,)),
    "actnorm of images": (lambda: ActNorm(4), IMAGE),
    "invertible convolution": (lambda: InvertibleConvolution(4), IMAGE),
    "squeeze": (Squeeze, IMAGE),
    "multiscale": (two_scales, (16,)),
    "planar": (lambda: Planar(5), (5,)),
    "masked autoregressive": (lambda: MaskedAutoregressive(5, [9, 7]), (5,)),
    "inverse autoregressive": (lambda: Inverse(MaskedAutoregressive(5, [9])), (5,)),
    "reverse": (Reverse, (5,)),
    "logit, inverted": (lambda: Inverse(Logit(0.05)), (5,)),
    "composition": (lambda: Composition([Planar(5), Reverse(), ActNorm(5), Inverse(Planar(5))]), (5,)),
}


def drawn(name: str) -> tuple[Bijection, Tensor]:
    """One of the cases with random weights, and rows for it."""
    build, shape = CASES[name]
    bijection = build()
    random_weights(bijection)
    return bijection, torch.randn(ROWS, *shape, dtype=torch.float64)


@pytest.mark.parametrize("name", CASES)
def test_inverse_and_log_determinant(name: str) -> None:
    bijection, x = drawn(name)
    assert inverse_error(bijection, x) < EXACT
    if name != "composition":  # whose inverted planar flow has a bisection, which autograd does not see
        assert log_det_error(bijection, x) < EXACT


def forgets_places(self: Any, places: int) -> Tensor:
    return self.log_scale_C.sum()


def scales_what_passes(self: Any, passing: Tensor) -> tuple[Tensor, Tensor]:
    raw, shift = self.conditioner(passing).chunk(2, dim=1)
    return raw.tanh(), shift * ~self.mask


def shifts_before_scaling(self: Any, z: Tensor) -> Tensor:
    log_scale, shift = self._log_scale_and_shift(z * self.mask)
    return z * (-log_scale).exp() - shift


def reads_all(self: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    return x + self._shift(x), x.new_zeros(len(x))


def unrepaired(self: Any) -> tuple[Tensor, Tensor, Tensor]:
    return -3 * self.w_D / self.w_D.square().sum(), self.w_D, torch.tensor(-2.0)


def recomputes_the_slope(self: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    u_D, w_D, _ = self._direction()
    h_R = torch.tanh(x @ w_D + self.b)
    return x + h_R[:, None] * u_D, torch.log1p((w_D @ u_D) * (1 - h_R.square()))


def forgets_the_margin(self: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    z = torch.logit(self.margin + (1 - 2 * self.margin) * x)
    return z, -(z.sigmoid().log() + (-z).sigmoid().log()).sum(1)


def keeps_the_sign(self: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    z = self.inner.inverse(x)
    return z, self.inner(z)[1]


MUTANTS: dict[str, tuple[type, str, Callable[..., Any]]] = {
    "invertible convolution": (InvertibleConvolution, "_log_det", forgets_places),
    "multiscale": (InvertibleConvolution, "_log_det", forgets_places),
    "affine, checkerboard": (AffineCoupling, "_log_scale_and_shift", scales_what_passes),
    "affine, channels": (AffineCoupling, "inverse", shifts_before_scaling),
    "additive, alternating": (AdditiveCoupling, "forward", reads_all),
    "logit, inverted": (Logit, "forward", forgets_the_margin),
    "inverse autoregressive": (Inverse, "forward", keeps_the_sign),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_planted_error_shows(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    owner, method, wrong = MUTANTS[name]
    bijection, x = drawn(name)
    x = 3 * x
    monkeypatch.setattr(owner, method, wrong)
    errors = (inverse_error(bijection, x), log_det_error(bijection, x))
    print(name, errors)
    assert not max(errors) < 1e-3, "NaN counts as an error"


@pytest.mark.parametrize("hidden", [[60], [60, 60]])
def test_autoregressive_jacobians_are_triangular(hidden: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    bijection = MaskedAutoregressive(5, hidden)
    random_weights(bijection)
    x_RD = torch.randn(ROWS, 5, dtype=torch.float64)
    found, lower = jacobians(bijection, x_RD), torch.ones(5, 5).tril(-1) > 0
    assert float(found.triu(1).abs().max()) == 0.0
    assert float(found.abs().amax(0)[lower].min()) > 0, "every earlier dimension is seen"
    assert float(jacobians(Inverse(bijection), x_RD).triu(1).abs().max()) == 0.0
    monkeypatch.setattr(masked.MaskedLinear, "forward", lambda self, x, mask: torch.nn.Linear.forward(self, x))
    assert float(jacobians(bijection, x_RD).triu(1).abs().max()) > 1e-3, "without masks"


def test_a_context_moves_all_dimensions_but_is_not_transformed() -> None:
    bijection = MaskedAutoregressive(4, [60], context_width=3)
    random_weights(bijection)
    x_RD, context_RC = torch.randn(ROWS, 4, dtype=torch.float64), torch.randn(ROWS, 3, dtype=torch.float64)
    z_RD = bijection(x_RD, context_RC)[0].detach()
    assert float((bijection.inverse(z_RD, context_RC) - x_RD).detach().abs().max()) < EXACT
    moved_RD = (bijection(x_RD, context_RC + 1)[0] - z_RD).detach().abs()
    assert float(moved_RD[:, 1:].amax(0).min()) > 0, "in some row: rectifiers that rest in one are at work in another"
    assert float(moved_RD[:, 0].max()) == 0, "the first sees no hidden unit"


def test_couplings_pass_what_their_mask_says_and_nice_keeps_volume() -> None:
    for name in ("affine, first half", "affine, checkerboard", "additive, alternating"):
        bijection, x = drawn(name)
        z, log_det_R = bijection(x)
        passes = bijection.mask.expand_as(x)
        assert torch.equal(z[passes], x[passes])
        assert float((z - x)[~passes].detach().abs().min()) > 0
        assert bool((log_det_R == 0).all()) == name.startswith("additive")
    assert int(checkerboard(1, 3, 3, 0).sum()) == 5
    assert not bool((checkerboard(2, 3, 3, 0) & checkerboard(2, 3, 3, 1)).any())
    assert torch.equal(channel_halves(4, 1, 1, 0).flatten(), torch.tensor([True, True, False, False]))


def test_a_planar_flow_that_would_fold_space_is_repaired(monkeypatch: pytest.MonkeyPatch) -> None:
    """Raw w.u = -3 gives derivatives below zero on the plane; m(-3) = -1 + log(1 + e^-3) is above -1."""
    bijection = Planar(2)
    random_weights(bijection)
    with torch.no_grad():
        bijection.u_D.copy_(unrepaired(bijection)[0])
    u_D, w_D, slope = (part.detach() for part in bijection._direction())
    assert float(w_D @ u_D) == pytest.approx(-1 + planar.LEAST + float(torch.tensor(-3.0).exp().log1p()), abs=1e-6)
    assert float(w_D @ u_D) == pytest.approx(float(slope) - 1, abs=1e-12)
    on_the_plane = -bijection.b * w_D / w_D.square().sum()
    x_RD = on_the_plane + 0.1 * torch.randn(50, 2, dtype=torch.float64)
    assert inverse_error(bijection, x_RD) < EXACT
    assert log_det_error(bijection, x_RD) < EXACT
    monkeypatch.setattr(planar.Planar, "_direction", unrepaired)
    assert not bool(bijection(x_RD)[1].isfinite().all()), "1 + u.w < 0 has no logarithm"


FOLDED = pytest.mark.parametrize("along", [-17.0, -40.0, -200.0])


def folded(along: float, dtype: torch.dtype) -> list[tuple[Planar, Tensor]]:
    """Planar flows of a raw w.u so far below -1, and rows [R, D] on their planes, beside them and away from them."""
    cases = []
    for _ in range(20):
        bijection = Planar(3).to(dtype)
        w_D = torch.randn(3, dtype=torch.float64)
        w_D /= w_D.norm()
        u_D, off_R = torch.randn(3, dtype=torch.float64), torch.tensor([0, 1e-5, 1e-3, -0.1, 0.7, -2]).double()
        with torch.no_grad():
            bijection.w_D.copy_(w_D)
            bijection.u_D.copy_(u_D + (along - w_D @ u_D) * w_D)
            bijection.b.fill_(0.3)
        x_RD = torch.randn(len(off_R), 3, dtype=torch.float64)
        cases.append((bijection, (x_RD + (off_R - 0.3 - x_RD @ w_D)[:, None] * w_D).to(dtype)))
    return cases


@FOLDED
def test_a_planar_flow_far_from_what_can_be_undone(along: float) -> None:
    for bijection, x_RD in folded(along, torch.float64):
        assert inverse_error(bijection, x_RD) < 1e-8
        assert log_det_error(bijection, x_RD) < 1e-6


@FOLDED
def test_a_planar_flow_in_float32(along: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """log(1 + e^a) - 1 is -1 there, and w.u of what was repaired lies on either side of it."""
    cases = folded(along, torch.float32)
    for bijection, x_RD in cases:
        z_RD, log_det_R = bijection(x_RD)
        assert bool(z_RD.isfinite().all() and log_det_R.isfinite().all())
        exact_R = copy.deepcopy(bijection).double()(x_RD.double())[1]
        assert float((log_det_R - exact_R).detach().abs().max()) < 1e-2
        assert inverse_error(bijection, x_RD) < 1e-2
        slopes = torch.autograd.grad(log_det_R.sum(), list(bijection.parameters()))
        assert all(bool(slope.isfinite().all()) for slope in slopes)
    monkeypatch.setattr(planar, "LEAST", 0.0)
    monkeypatch.setattr(Planar, "forward", recomputes_the_slope)
    assert not all(bool(bijection(x_RD)[1].isfinite().all()) for bijection, x_RD in cases)


def test_an_invertible_convolution_starts_as_a_rotation() -> None:
    bijection = InvertibleConvolution(6)
    permutation_CC, lower_CC, upper_CC = bijection.factors()
    weight_CC = permutation_CC @ lower_CC @ upper_CC
    assert torch.allclose(weight_CC @ weight_CC.T, torch.eye(6), atol=1e-5)
    assert float((weight_CC - torch.eye(6)).abs().max()) > 0.1
    assert bool((upper_CC.diagonal() > 0).all())


@pytest.mark.parametrize("value", [float("-inf"), float("nan"), float("inf"), -1000.0])
def test_a_singular_convolution_is_refused(value: float) -> None:
    bijection = InvertibleConvolution(4)
    with torch.no_grad():
        bijection.log_scale_C[2] = value
    for direction in (bijection.inverse, bijection.forward):
        with torch.no_grad(), pytest.raises(BadInput, match=r"weight is singular: factor .* of channel 2 of 4"):
            direction(torch.randn(1, 4, 2, 2))
    assert bijection(torch.randn(1, 4, 2, 2))[1].requires_grad, "in training the run's policy acts"


@pytest.mark.parametrize("name", ["actnorm of vectors", "actnorm of images"])
def test_an_actnorm_shifts_before_it_scales(name: str) -> None:
    """So that its shift is the mean of data, and its scale one over their deviation, wherever they lie."""
    bijection, x = drawn(name)
    assert isinstance(bijection, ActNorm)
    beside = (-1, *[1] * (x.dim() - 2))
    shift, scale = bijection.shift_C.view(beside), bijection.log_scale_C.exp().view(beside)
    assert torch.allclose(bijection(x)[0], (x + shift) * scale, rtol=0, atol=EXACT)
    assert torch.allclose(bijection.inverse(x), x / scale - shift, rtol=0, atol=EXACT)


def test_bounded_scales_never_blow_up() -> None:
    bijection = AffineCoupling(halves(4, 0), perceptron([4, 8, 8])).double()
    x_RD = 1e6 * torch.randn(8, 4, dtype=torch.float64)
    log_det_R = bijection(x_RD)[1]
    assert float(log_det_R.abs().max()) <= 2 * coupling.LARGEST_LOG_SCALE


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_levels_there_and_back(levels: int) -> None:
    values_RD = torch.arange(levels, dtype=torch.float64)[:, None] / (levels - 1)
    for noise in (0.0, 0.5, 1 - 1e-6):
        y_RD, log_det_R = dequantize(values_RD, torch.full_like(values_RD, noise), levels)
        assert torch.allclose(quantize(y_RD, levels), values_RD, rtol=0, atol=1e-12)
        assert torch.allclose(log_det_R.exp(), torch.full_like(log_det_R, 1 / levels))
    most_11 = dequantize(torch.ones(1, 1), torch.full((1, 1), 1 - 2.0**-24), levels)[0]
    assert float(most_11) < 1, "the largest noise of float32, at the largest level"
    assert quantize(torch.tensor([[-0.3, 1.2]]), levels).tolist() == [[0.0, 1.0]]
    with pytest.raises(BadInput, match="must lie from 0 to 1"):
        dequantize(values_RD + 1.5, torch.zeros_like(values_RD), levels)
