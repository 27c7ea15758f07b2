"""The blocked output layer against torch's cross-entropy of explicit logits."""

import pytest
import torch
from torch.nn import functional as F

from kernels.linear_cross_entropy import IGNORED, linear_cross_entropy
from kernels.linear_cross_entropy.reference import BLOCK_ROWS

N, W, V = 2 * BLOCK_ROWS + 7, 12, 31


def inputs(dtype: torch.dtype, *, bias: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor]:
    labels_N = torch.randint(V, (N,))
    labels_N[::5] = IGNORED
    bias_V = torch.randn(V, dtype=dtype, requires_grad=True) if bias else None
    hidden_NW, weight_VW = (torch.randn(n, W, dtype=dtype, requires_grad=True) for n in (N, V))
    return hidden_NW, weight_VW, bias_V, labels_N


def gradients(nats_N: torch.Tensor, factor_N: torch.Tensor, *tensors: torch.Tensor | None) -> list[torch.Tensor]:
    return list(torch.autograd.grad((nats_N * factor_N).sum(), [t for t in tensors if t is not None]))


def plain(hidden_NW: torch.Tensor, weight_VW: torch.Tensor, bias_V: torch.Tensor | None, labels_N: torch.Tensor):
    return F.cross_entropy(F.linear(hidden_NW, weight_VW, bias_V), labels_N, reduction="none", ignore_index=IGNORED)


@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_are_exact_in_float64(bias: bool) -> None:
    *tensors, labels_N = inputs(torch.float64, bias=bias)
    factor_N = torch.randn(N, dtype=torch.float64)
    ours, expected = linear_cross_entropy(*tensors, labels_N), plain(*tensors, labels_N)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)
    for got, want in zip(gradients(ours, factor_N, *tensors), gradients(expected, factor_N, *tensors), strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-12)


def test_ignored_rows_cost_nothing_and_move_nothing() -> None:
    hidden_NW, weight_VW, bias_V, labels_N = inputs(torch.float64, bias=True)
    nats_N = linear_cross_entropy(hidden_NW, weight_VW, bias_V, labels_N)
    (d_hidden_NW,) = torch.autograd.grad(nats_N.sum(), hidden_NW)
    assert torch.all(nats_N[labels_N == IGNORED] == 0)
    assert torch.all(d_hidden_NW[labels_N == IGNORED] == 0)
    assert torch.all(d_hidden_NW[labels_N != IGNORED].abs().sum(1) > 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_low_precision_errs_at_most_as_plain_torch_does(dtype: torch.dtype) -> None:
    """Against float64: values within 2x, gradients within 3x of the error of plain torch in the same dtype."""
    *tensors, labels_N = inputs(dtype, bias=True)
    exact = [tensor.detach().double().requires_grad_() for tensor in tensors]
    factor_N = torch.rand(N) + 0.5
    want_N = plain(*exact, labels_N)
    want = [want_N, *gradients(want_N, factor_N.double(), *exact)]
    ours_N, plain_N = linear_cross_entropy(*tensors, labels_N), plain(*tensors, labels_N)
    ours = [ours_N, *gradients(ours_N, factor_N, *tensors)]
    theirs = [plain_N, *gradients(plain_N, factor_N, *tensors)]
    for index, (got, other, target) in enumerate(zip(ours, theirs, want, strict=True)):
        error, allowed = ((x.double() - target).norm() / target.norm() for x in (got, other))
        assert error <= (2 if index == 0 else 3) * allowed + 1e-7


def test_gradcheck() -> None:
    *tensors, labels_N = inputs(torch.float64, bias=True)
    few = [tensors[0][:6].detach().requires_grad_(), *tensors[1:]]
    assert torch.autograd.gradcheck(lambda *t: linear_cross_entropy(*t, labels_N[:6]), few)
