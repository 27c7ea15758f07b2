"""Every misuse is answered with the argument, its shape and the rule, whichever implementation would run."""

import re
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kernels.choice import Implementation
from kernels.relative_attention import relative_attention, unsupported
from kernels.relative_attention.cases import Case
from kernels.relative_attention.fused import Tensors

CASE = Case("", 2, 2, 4, 3, 16)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def attend(impl: Implementation = "auto", **changed: Tensor) -> Tensor:
    device = changed["q_BLHD"].device if "q_BLHD" in changed else "cpu"
    given = CASE.tensors(torch.float32, device)._asdict() | changed
    return relative_attention(**given, impl=impl)


def spread(tensor: Tensor) -> Tensor:
    """The same values, its last dimension not contiguous."""
    return torch.stack([tensor, tensor], dim=-1)[..., 0]


BAD: dict[str, tuple[str, Callable[[Tensor], Tensor], str]] = {
    "heads": ("k_BKHD", lambda x: x[:, :, :1], "has shape (2, 7, 1, 16); with q_BLHD (2, 4, 2, 16) it must be"),
    "width": ("r_THD", lambda x: x[..., :8], "has shape (7, 2, 8); with q_BLHD (2, 4, 2, 16) it must be (7, 2, 16)"),
    "values": ("v_BKHD", lambda x: x[:, 1:], "has shape (2, 6, 2, 16); with q_BLHD (2, 4, 2, 16) it must be"),
    "rows": ("window_BL", lambda x: x[:1], "has shape (1, 4); with q_BLHD (2, 4, 2, 16) it must be (2, 4)"),
    "bias": ("u_HD", lambda x: x[0], "has shape (16,); with q_BLHD (2, 4, 2, 16) it must be (2, 16)"),
    "strides": ("q_BLHD", spread, "(2, 4, 2, 16) has strides (256, 64, 32, 2); its last dimension must be contiguous"),
    "device": ("w_HD", lambda x: x.to("meta"), "(2, 16) is on meta; it must be on cpu, as q_BLHD is"),
    "dtype": ("v_BKHD", Tensor.double, "(2, 7, 2, 16) is of torch.float64; it must be of torch.float32"),
    "window": ("window_BL", Tensor.int, "(2, 4) is of torch.int32; it must be of torch.int64"),
    "table": ("r_THD", lambda x: x[:0], "has shape (0, 2, 16); it needs at least distance 0"),
    "queries": ("q_BLHD", lambda x: x[0], "has shape (4, 2, 16); it must have 4 dimensions"),
}


@pytest.mark.parametrize("impl", ["auto", "triton", "reference"])
@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_is_named(name: str, impl: Implementation) -> None:
    argument, spoil, rule = BAD[name]
    with pytest.raises(ValueError, match=re.escape(f"{argument} {rule}")):
        attend(impl, **{argument: spoil(getattr(CASE.tensors(torch.float32), argument))})


def test_fewer_keys_than_queries() -> None:
    few = {name: getattr(CASE.tensors(torch.float32), name)[:, :3] for name in ("k_BKHD", "v_BKHD")}
    with pytest.raises(ValueError, match=r"k_BKHD \(2, 3, 2, 16\) has 3 keys for 4 queries; K = M \+ L"):
        attend(**few)


@pytest.mark.parametrize(
    ("width", "dtype", "reason"),
    [(160, torch.float32, "heads are 160 wide, it holds 128 at most"), (16, torch.float64, "not torch.float64")],
)
def test_an_explicit_choice_that_cannot_run_says_why(width: int, dtype: torch.dtype, reason: str) -> None:
    tensors = Case("", 1, 1, 2, 1, width).tensors(dtype)
    assert reason in str(unsupported(tensors.q_BLHD))
    with pytest.raises(ValueError, match=rf"impl='triton' cannot run: .*{reason}; use impl='reference', or 'auto'"):
        relative_attention(**tensors._asdict(), impl="triton")
    assert relative_attention(**tensors._asdict()).isfinite().all(), "auto takes the reference"


@pytest.mark.parametrize("impl", ["auto", "triton", "reference"])
@pytest.mark.parametrize("dropout", [-0.1, 1.0, 1.5, float("nan")])
def test_a_share_to_drop_that_is_none(dropout: float, impl: Implementation) -> None:
    tensors = CASE.tensors(torch.float32)
    with pytest.raises(ValueError, match=rf"dropout is {dropout}; it must be at least 0 and less than 1"):
        relative_attention(**tensors._asdict(), dropout=dropout, impl=impl)


@pytest.mark.parametrize("impl", ["Reference", "trition", "", None])
def test_an_implementation_that_there_is_not(impl: Implementation) -> None:
    """Of every operation: they share the choice."""
    with pytest.raises(ValueError, match=f"relative_attention: impl is {impl!r}; it must be one of auto, triton, refe"):
        attend(impl)


def test_a_graph_of_the_gradient_is_refused_by_the_fused_kernel() -> None:
    tensors = CASE.tensors(torch.float32, DEVICE)
    q_BLHD = tensors.q_BLHD.requires_grad_()
    read = attend("triton", q_BLHD=q_BLHD).sum()
    with pytest.raises(RuntimeError, match="differentiable once here, but backward was called with create_graph=True"):
        torch.autograd.grad(read, q_BLHD, create_graph=True)
    (gradient,) = torch.autograd.grad(attend("reference", q_BLHD=q_BLHD).sum(), q_BLHD, create_graph=True)
    assert gradient.requires_grad


def test_what_is_read_may_be_changed_in_place() -> None:
    q_BLHD = CASE.tensors(torch.float32, DEVICE).q_BLHD.requires_grad_()
    assert attend("triton", q_BLHD=q_BLHD).add_(1.0).requires_grad


def test_the_seed_is_drawn_on_the_cpu_whatever_the_default_device() -> None:
    tensors = CASE.tensors(torch.float32, DEVICE)
    with torch.device("meta"):
        assert relative_attention(**tensors._asdict(), dropout=0.1, impl="triton").isfinite().all()


def test_without_triton_the_reference_computes_and_the_reason_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    tensors = CASE.tensors(torch.float32)
    assert unsupported(tensors.q_BLHD) == "triton is not installed"
    assert relative_attention(**tensors._asdict()).isfinite().all()


def test_a_last_dimension_of_one_is_contiguous_whatever_its_stride() -> None:
    """As of the windows of one query that were cut from those of several."""
    tensors = Case("", 2, 1, 1, 3, 16).tensors(torch.float32, DEVICE)
    window_BL = torch.full((2, 1, 4), 9, device=DEVICE)[:, :, 1]
    assert window_BL.stride(-1) != 1
    for impl in ("triton", "reference"):
        assert attend_with(tensors, window_BL, impl).isfinite().all()


def attend_with(tensors: Tensors, window_BL: Tensor, impl: Implementation) -> Tensor:
    return relative_attention(*tensors[:6], window_BL=window_BL, impl=impl)


@pytest.mark.skipif(torch.cuda.is_available(), reason="without a GPU")
def test_on_a_cpu_only_the_interpreter_runs_and_not_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = CASE.tensors(torch.bfloat16)
    assert "multiplies bfloat16 wrongly" in str(unsupported(tensors.q_BLHD))
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    assert "TRITON_INTERPRET=1" in str(unsupported(tensors.q_BLHD))
