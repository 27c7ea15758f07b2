"""The fused output layer against float64; compiled on a GPU, else in Triton's interpreter.

The bound of an error is that of plain torch in the same dtype: 2x its own for values, 3x for gradients.
"""

import re
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from kernels.linear_cross_entropy import IGNORED, linear_cross_entropy, reference, triton, unsupported
from kernels.linear_cross_entropy.triton import Tiles

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = [torch.float32, torch.float16, *([torch.bfloat16] if torch.cuda.is_available() else [])]
SMALL = Tiles(rows=16, columns=32, width=16)
SHAPES = {"ragged": (37, 41, 75), "one row": (1, 16, 33), "one tile": (16, 16, 32), "few columns": (50, 24, 3)}
"""Rows, width, vocabulary."""


@pytest.fixture(autouse=True)
def poisoned_outputs() -> Iterator[None]:
    """What a kernel does not write is not a number."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def draw(shape: tuple[int, int, int], dtype: torch.dtype, *, biased: bool) -> tuple[list[Tensor | None], Tensor]:
    rows, width, columns = shape
    torch.manual_seed(3)
    weights = [torch.randn(n, width).to(DEVICE, dtype) for n in (rows, columns)]
    labels_N = torch.randint(columns, (rows,))
    labels_N[1::5] = IGNORED
    labels_N[16:32] = IGNORED  # a whole tile
    return [*weights, torch.randn(columns).to(DEVICE, dtype) if biased else None], labels_N.to(DEVICE)


def scored(score: Callable[..., Tensor], given: list[Tensor | None], labels_N: Tensor) -> list[Tensor]:
    """Nats, and the gradients of a weighted sum of them."""
    leaves = [None if x is None else x.detach().requires_grad_() for x in given]
    nats_N = score(*leaves, labels_N)
    factor_N = torch.linspace(0.5, 1.5, len(labels_N), dtype=nats_N.dtype, device=DEVICE)
    present = [x for x in leaves if x is not None]
    return [nats_N.detach(), *torch.autograd.grad((nats_N * factor_N).sum(), present)]


def plain(hidden_NW: Tensor, weight_VW: Tensor, bias_V: Tensor | None, labels_N: Tensor) -> Tensor:
    logits_NV = F.linear(hidden_NW, weight_VW, bias_V)
    return F.cross_entropy(logits_NV, labels_N, reduction="none", ignore_index=IGNORED)


def check(shape: tuple[int, int, int], dtype: torch.dtype, *, biased: bool, mostly_ignored: bool = False) -> None:
    given, labels_N = draw(shape, dtype, biased=biased)
    exact = scored(plain, [None if x is None else x.double() for x in given], labels_N)
    rounded = scored(plain, given, labels_N)
    fused = partial(triton.linear_cross_entropy, mostly_ignored=mostly_ignored, tiles=SMALL)
    found = scored(fused, given, labels_N)
    for index, (got, other, target) in enumerate(zip(found, rounded, exact, strict=True)):
        error, allowed = ((x.double() - target).norm() / target.norm().clamp(min=1e-30) for x in (got, other))
        floor = 2 * torch.finfo(torch.float32).eps  # of one value plain torch may err by nothing
        assert error <= (3 if index else 2) * max(allowed, floor), (index, error.item(), allowed.item())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients(shape: str, dtype: torch.dtype) -> None:
    check(SHAPES[shape], dtype, biased=True)


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_skipping_ignored_tiles_everywhere(dtype: torch.dtype, biased: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their errors are never written, so whoever reads them finds no number; of several buffers, too."""
    check(SHAPES["ragged"], dtype, biased=biased, mostly_ignored=True)
    monkeypatch.setattr(triton, "BUFFER_ELEMENTS", 37 * 32)
    check(SHAPES["ragged"], dtype, biased=biased, mostly_ignored=True)


def test_without_a_bias() -> None:
    check(SHAPES["ragged"], torch.float32, biased=False)


def test_a_small_buffer_and_a_split_vocabulary_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton, "BUFFER_ELEMENTS", 37 * 32)
    monkeypatch.setattr(triton, "_splits", lambda *_: 2)
    check(SHAPES["ragged"], torch.float32, biased=True)


def test_ignored_rows_are_exactly_nothing() -> None:
    given, labels_N = draw(SHAPES["ragged"], torch.float32, biased=True)
    nats_N, d_hidden_NW, *_ = scored(lambda *t: triton.linear_cross_entropy(*t, tiles=SMALL), given, labels_N)
    ignored_N = labels_N == IGNORED
    assert not nats_N[ignored_N].any()
    assert not d_hidden_NW[ignored_N].any()
    assert nats_N[~ignored_N].all()
    assert d_hidden_NW[~ignored_N].abs().sum(1).all()


@pytest.mark.parametrize("label", [75, 10**12, -1, -101])
@pytest.mark.parametrize("fused", [True, False])
def test_a_label_outside_the_vocabulary_is_no_number(label: int, fused: bool) -> None:
    """As on a GPU, where nobody looks; nor is the gradient of its row."""
    given, labels_N = draw(SHAPES["ragged"], torch.float32, biased=True)
    labels_N[3] = label
    by = partial(triton.linear_cross_entropy, tiles=SMALL) if fused else reference.linear_cross_entropy
    nats_N, d_hidden_NW, *_ = scored(by, given, labels_N)
    assert nats_N.isnan().nonzero().flatten().tolist() == [3]
    assert d_hidden_NW.isnan().any(1).nonzero().flatten().tolist() == [3]


@pytest.mark.skipif(torch.cuda.is_available(), reason="nobody looks there")
@pytest.mark.parametrize("impl", ["auto", "triton", "reference"])
@pytest.mark.parametrize("label", [75, -1])
def test_a_label_outside_the_vocabulary_is_named_on_a_cpu(label: int, impl: str) -> None:
    given, labels_N = draw(SHAPES["ragged"], torch.float32, biased=True)
    labels_N[3] = label
    with pytest.raises(ValueError, match=f"labels_N has {label}; a label must be from 0 to 74, or -100"):
        linear_cross_entropy(*given, labels_N, impl=impl)


@pytest.mark.parametrize("impl", ["triton", "reference"])
def test_a_graph_of_the_gradient_is_refused(impl: str) -> None:
    given, labels_N = draw(SHAPES["ragged"], torch.float32, biased=True)
    leaf = given[0].requires_grad_()
    nats = linear_cross_entropy(leaf, *given[1:], labels_N, impl=impl).sum()
    with pytest.raises(RuntimeError, match="differentiable once"):
        torch.autograd.grad(nats, leaf, create_graph=True)


def test_labels_and_bias_may_lie_apart() -> None:
    given, labels_N = draw(SHAPES["ragged"], torch.float32, biased=True)
    wanted = triton.linear_cross_entropy(*given, labels_N, tiles=SMALL)
    apart = [given[0], given[1], torch.stack([given[2]] * 2, 1)[:, 0]]
    found = triton.linear_cross_entropy(*apart, torch.stack([labels_N] * 3, 1)[:, 1], tiles=SMALL)
    assert torch.equal(found, wanted)


def test_the_package_chooses_what_it_is_told() -> None:
    given, labels_N = draw(SHAPES["ragged"], torch.float32, biased=True)
    by = {impl: linear_cross_entropy(*given, labels_N, impl=impl) for impl in ("auto", "triton", "reference")}
    assert torch.equal(by["triton"], triton.linear_cross_entropy(*given, labels_N))
    assert torch.equal(by["reference"], reference.linear_cross_entropy(*given, labels_N))
    assert torch.equal(by["auto"], by["triton" if DEVICE == "cuda" else "reference"])
    double = [x.double() for x in given]
    assert "not torch.float64" in str(unsupported(double[0]))
    with pytest.raises(ValueError, match=r"linear_cross_entropy: impl='triton' cannot run: .* not torch.float64"):
        linear_cross_entropy(*double, labels_N, impl="triton")


def test_no_rows() -> None:
    given, labels_N = draw(SHAPES["ragged"], torch.float32, biased=True)
    assert linear_cross_entropy(given[0][:0], *given[1:], labels_N[:0], impl="triton").shape == (0,)


@pytest.mark.parametrize("impl", ["auto", "triton", "reference"])
@pytest.mark.parametrize(
    ("index", "spoil", "rule"),
    [
        (0, lambda x: x[0], "hidden_NW has shape (41,); it must have 2 dimensions"),
        (1, lambda x: x[:, :7], "weight_VW has shape (75, 7); with hidden_NW (37, 41) it must be (V, 41)"),
        (1, lambda x: torch.stack([x, x], -1)[..., 0], "weight_VW (75, 41) has strides (82, 2); its last dimension"),
        (2, lambda x: x[:7], "bias_V has shape (7,); with"),
        (3, lambda x: x[:7], "labels_N has shape (7,); with"),
        (3, lambda x: x.int(), "labels_N (37,) is of torch.int32; it must be of torch.int64"),
        (1, lambda x: x.to("meta"), "weight_VW (75, 41) is on meta; it must be on"),
    ],
)
def test_what_does_not_fit_is_named(index: int, spoil: Callable[[Tensor], Tensor], rule: str, impl: str) -> None:
    given, labels_N = draw(SHAPES["ragged"], torch.float32, biased=True)
    arguments = [*given, labels_N]
    arguments[index] = spoil(arguments[index])
    with pytest.raises(ValueError, match=re.escape(rule)):
        linear_cross_entropy(*arguments, impl=impl)


def test_what_is_no_number_stays_none_and_barred_columns_are_none() -> None:
    """One weight that is no number spoils every row; a first tile of columns that are barred is like none at all."""
    given, labels_N = draw(SHAPES["ragged"], torch.float32, biased=True)
    labels_N[labels_N != IGNORED] = 60
    barred = [given[0], given[1], given[2].clone()]
    barred[2][:32] = -torch.inf
    found = triton.linear_cross_entropy(*barred, labels_N, tiles=SMALL)
    torch.testing.assert_close(found, reference.linear_cross_entropy(*barred, labels_N), rtol=1e-5, atol=1e-5)
    for value in (torch.nan, torch.inf):
        spoilt = [given[0], given[1].clone(), given[2]]
        spoilt[1][70] = value
        nats_N = triton.linear_cross_entropy(*spoilt, labels_N, tiles=SMALL)
        assert not nats_N[labels_N != IGNORED].isfinite().any()


def test_the_gradient_of_a_plain_sum() -> None:
    given, labels_N = draw(SHAPES["ragged"], torch.float32, biased=True)
    found = []
    for score in (partial(triton.linear_cross_entropy, tiles=SMALL), plain):
        leaves = [x.detach().requires_grad_() for x in given]
        found.append(torch.autograd.grad(score(*leaves, labels_N).sum(), leaves))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
