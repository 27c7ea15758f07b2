"""The reference against its definition, written as a loop over every query and key.

Shape legend: B rows, L queries, K keys, H heads, D head width, T distances.
"""

import math

import pytest
import torch
from torch import Tensor

from kernels.relative_attention import reference, relative_attention, window_mask
from kernels.relative_attention.cases import RAGGED, Case
from kernels.relative_attention.reference import by_distance, relative_shift


def draw(batch: int, queries: int, memory: int, heads: int, width: int, distances: int) -> dict[str, Tensor]:
    keys = memory + queries
    shapes = {
        "q_BLHD": (batch, queries, heads, width),
        "k_BKHD": (batch, keys, heads, width),
        "v_BKHD": (batch, keys, heads, width),
        "r_THD": (distances, heads, width),
        "u_HD": (heads, width),
        "w_HD": (heads, width),
    }
    return {name: torch.randn(shape, dtype=torch.float64) for name, shape in shapes.items()}


def by_loops(tensors: dict[str, Tensor], window_BL: Tensor) -> Tensor:
    """The module docstring's formula, one query, key and head at a time."""
    q, k, v, r, u, w = (tensors[name] for name in ("q_BLHD", "k_BKHD", "v_BKHD", "r_THD", "u_HD", "w_HD"))
    memory = k.shape[1] - q.shape[1]
    out = torch.zeros_like(q)
    for b in range(q.shape[0]):
        for i in range(q.shape[1]):
            for h in range(q.shape[2]):
                seen = [j for j in range(k.shape[1]) if 0 <= i + memory - j <= window_BL[b, i]]
                scores = []
                for j in seen:
                    t = min(i + memory - j, r.shape[0] - 1)
                    score = (q[b, i, h] + u[h]) @ k[b, j, h] + (q[b, i, h] + w[h]) @ r[t, h]
                    scores.append(score / math.sqrt(q.shape[-1]))
                weights = torch.stack(scores).softmax(0)
                out[b, i, h] = sum(weight * v[b, j, h] for weight, j in zip(weights, seen, strict=True))
    return out


SHAPES = [
    pytest.param(2, 4, 3, 2, 5, 7, id="memory"),
    pytest.param(1, 4, 0, 1, 3, 4, id="no-memory"),
    pytest.param(2, 3, 5, 2, 2, 3, id="clamped-table"),
    pytest.param(1, 1, 6, 2, 4, 7, id="one-query"),
    pytest.param(2, 5, 2, 1, 4, 1, id="one-distance"),
]


def check_against_loops(shape: tuple[int, ...]) -> None:
    tensors = draw(*shape)
    batch, queries, memory = shape[:3]
    window_BL = torch.randint(0, memory + queries + 2, (batch, queries))
    torch.testing.assert_close(
        relative_attention(**tensors, window_BL=window_BL), by_loops(tensors, window_BL), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("shape", [pytest.param(p.values, id=p.id) for p in SHAPES])
def test_equals_the_double_loop(shape: tuple[int, ...]) -> None:
    check_against_loops(shape)


def shift_too_far(position_BHLK: Tensor) -> Tensor:
    return relative_shift(position_BHLK).roll(1, dims=-1)


def no_shift(position_BHLK: Tensor) -> Tensor:
    return position_BHLK


@pytest.mark.parametrize("mutant", [shift_too_far, no_shift])
def test_a_wrong_shift_fails(mutant: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "relative_shift", mutant)
    with pytest.raises(AssertionError):
        check_against_loops((2, 4, 3, 2, 5, 7))


def test_shift_moves_each_row_to_its_keys() -> None:
    queries, memory = 4, 3
    keys = queries + memory
    descending = torch.arange(keys - 1, -1, -1).expand(1, 1, queries, keys).contiguous()
    shifted = relative_shift(descending)[0, 0]
    for i in range(queries):
        for j in range(i + memory + 1):
            assert shifted[i, j] == i + memory - j


def test_mask_is_the_band() -> None:
    window_BL = torch.tensor([[0, 1, 5], [2, 0, 3]])
    masked = window_mask(window_BL, 5)
    for b in range(2):
        for i in range(3):
            for j in range(5):
                assert masked[b, 0, i, j] == (not 0 <= i + 2 - j <= window_BL[b, i])


def test_gradients() -> None:
    tensors = draw(2, 3, 2, 2, 2, 4)
    window_BL = torch.tensor([[4, 1, 0], [2, 3, 4]])

    def attend(*values: Tensor) -> Tensor:
        return relative_attention(*values, window_BL=window_BL)

    assert torch.autograd.gradcheck(attend, tuple(tensor.requires_grad_() for tensor in tensors.values()))


def test_masked_keys_leave_no_trace() -> None:
    """However large a key that nobody may see, the result has the same bits."""
    tensors = draw(1, 3, 4, 2, 4, 7)
    window_BL = torch.full((1, 3), 2)
    before = relative_attention(**tensors, window_BL=window_BL)
    tensors["k_BKHD"][:, :2] = 1e300
    tensors["v_BKHD"][:, :2] = 1e300
    assert torch.equal(relative_attention(**tensors, window_BL=window_BL), before)


def test_dropout_is_of_the_weights() -> None:
    """With values all one, a row without dropout reads exactly one; with it, a mean of one over draws."""
    tensors = draw(4, 8, 8, 4, 4, 16)
    tensors["v_BKHD"] = torch.ones_like(tensors["v_BKHD"])
    window_BL = torch.full((4, 8), 99)
    torch.manual_seed(0)
    read = torch.stack([relative_attention(**tensors, window_BL=window_BL, dropout=0.5) for _ in range(200)])
    assert (read - 1).abs().max() > 0.1
    error = read.mean(0) - 1
    standard_error = read.std(0) / math.sqrt(200)
    assert ((error / standard_error).abs() < 5).all()


@pytest.mark.parametrize("case", RAGGED, ids=lambda case: case.name)
def test_equals_looking_up_every_distance(case: Case) -> None:
    tensors = case.tensors(torch.float64)
    read_BLHD = relative_attention(*tensors[:6], window_BL=tensors.window_BL)
    torch.testing.assert_close(read_BLHD, by_distance(*tensors[:6], window_BL=tensors.window_BL), rtol=0, atol=1e-12)


def test_cached_memory_gets_no_gradient_and_all_else_the_same() -> None:
    tensors = draw(2, 3, 4, 2, 2, 7)
    leaves = [tensor.requires_grad_() for tensor in tensors.values()]
    gradient_BLHD, window_BL = torch.randn(2, 3, 2, 2, dtype=torch.float64), torch.full((2, 3), 9)
    faithful, cached = (
        torch.autograd.grad(
            relative_attention(*leaves, window_BL=window_BL, memory_gradient=kept), leaves, gradient_BLHD
        )
        for kept in (True, False)
    )
    for index, (one, other) in enumerate(zip(faithful, cached, strict=True)):
        memory = 4 if index in (1, 2) else 0
        torch.testing.assert_close(other[:, memory:] if memory else other, one[:, memory:] if memory else one)
        assert not other[:, :memory].any()
        assert one[:, :memory].all()


def test_unpositioned_errors() -> None:
    tensors = draw(1, 3, 0, 1, 2, 0)
    with pytest.raises(ValueError, match="at least distance 0"):
        relative_attention(**tensors, window_BL=torch.zeros(1, 3, dtype=torch.int64))
