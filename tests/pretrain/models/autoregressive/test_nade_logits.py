"""The conditionals of a NADE in blocks: their equations written down, in value and gradient, wherever blocks end."""

import pytest
import torch
from torch import Tensor

from pretrain.models.autoregressive import nade_logits as module
from pretrain.models.autoregressive.nade_logits import nade_logits

ROWS, VALUES, HIDDEN = 3, 11, 5


def written_down(x_RD: Tensor, weight_DH: Tensor, start_RH: Tensor, output_weight_DH: Tensor) -> Tensor:
    sums_RDH = (x_RD[..., None] * weight_DH).cumsum(1)
    before_RDH = torch.cat([torch.zeros_like(sums_RDH[:, :1]), sums_RDH[:, :-1]], 1)
    return ((before_RDH + start_RH[:, None]).sigmoid() * output_weight_DH).sum(-1)


def drawn(start_rows: int) -> tuple[Tensor, ...]:
    x_RD = torch.bernoulli(torch.full((ROWS, VALUES), 0.5, dtype=torch.float64))
    sizes = ((VALUES, HIDDEN), (start_rows, HIDDEN), (VALUES, HIDDEN))
    return x_RD, *(torch.randn(size, dtype=torch.float64, requires_grad=True) for size in sizes)


def error(operands: tuple[Tensor, ...]) -> float:
    """The largest of values and gradients."""
    cotangent_RD = torch.randn(ROWS, VALUES, dtype=torch.float64)
    found, expected = nade_logits(*operands), written_down(*operands)
    found_gradients = torch.autograd.grad((found * cotangent_RD).sum(), operands[1:])
    gradients = torch.autograd.grad((expected * cotangent_RD).sum(), operands[1:])
    pairs = [(found, expected), *zip(found_gradients, gradients, strict=True)]
    return max(float((ours - theirs).detach().abs().max()) for ours, theirs in pairs)


@pytest.mark.parametrize("start_rows", [1, ROWS])
@pytest.mark.parametrize("numbers", [1, 4 * ROWS * HIDDEN, 10**6], ids=["one by one", "in fours", "in one"])
def test_blocks_are_the_equations(start_rows: int, numbers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NUMBERS_OF_A_BLOCK", numbers)
    operands = drawn(start_rows)
    assert error(operands) < 1e-12
    assert torch.autograd.gradcheck(nade_logits, operands)


def test_a_planted_error_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A block that sees its own value, and one that forgets what the block before has left."""
    monkeypatch.setattr(module, "NUMBERS_OF_A_BLOCK", 4 * ROWS * HIDDEN)
    operands, right = drawn(1), module._hidden
    monkeypatch.setattr(module, "_hidden", lambda x, weight, before: right(x, weight, before + x[:, :1] * weight[0]))
    assert error(operands) > 1e-3
    monkeypatch.setattr(module, "_hidden", lambda x, weight, before: right(x, weight, torch.zeros_like(before)))
    assert error(operands) > 1e-3


def test_nothing_as_large_as_rows_times_values_times_hidden_units_is_kept() -> None:
    x_RD, weight_DH, start_RH, _ = drawn(1)
    saved = 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal saved
        saved += tensor.numel()
        return tensor

    wide_RD, wide_DH = x_RD.repeat(40, 40), weight_DH.detach().repeat(40, 40).requires_grad_()
    start_RH = start_RH.detach().repeat(1, 40).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        nade_logits(wide_RD, wide_DH, start_RH, wide_DH)
    assert saved < len(wide_RD) * wide_DH.numel() / 4
