"""Who computes, by what is asked for and where the tensors are."""

import pytest
import torch

from kernels.choice import choose, float32_products, no_triton

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("asked", "reason", "device", "chosen"),
    [
        ("auto", None, GPU, "triton"),
        ("auto", "too wide", GPU, "reference"),
        ("auto", None, CPU, "reference"),
        ("triton", None, CPU, "triton"),
        ("triton", None, GPU, "triton"),
        ("reference", None, GPU, "reference"),
    ],
)
def test_who_computes(asked: str, reason: str | None, device: torch.device, chosen: str) -> None:
    assert choose("x", asked, lambda: reason, device) == chosen  # type: ignore[arg-type]


def test_the_reference_asks_for_no_reason() -> None:
    def never() -> str | None:
        raise AssertionError("asked")

    for asked, device in (("reference", GPU), ("auto", CPU)):
        assert choose("x", asked, never, device) == "reference"  # type: ignore[arg-type]


def test_a_gpu_without_triton_or_too_old_takes_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    for capability, reason in (((7, 5), "compute capability 7.5, it needs 8.0 at least"), ((9, 0), None)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, found=capability: found)
        said = no_triton(GPU, torch.bfloat16)
        assert said is None if reason is None else reason in str(said)
    monkeypatch.setitem(__import__("sys").modules, "triton", None)
    assert no_triton(GPU, torch.bfloat16) == "triton is not installed"


def test_float32_is_rounded_only_where_torch_may_as_well() -> None:
    before = torch.get_float32_matmul_precision()
    try:
        for precision, wanted in (("highest", "ieee"), ("high", "tf32")):
            torch.set_float32_matmul_precision(precision)
            assert float32_products(torch.float32) == wanted
            assert float32_products(torch.bfloat16) == "ieee"
    finally:
        torch.set_float32_matmul_precision(before)
