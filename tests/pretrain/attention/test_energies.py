"""Additive energies by hand; soft attention is a distribution over the source, a dictionary where keys are far apart.

Shape legend: R rows, T target positions, S source positions, A width of energies, M memory width.
"""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pretrain.attention.chunkwise import ChunkwiseConfig
from pretrain.attention.soft import SoftAttention, SoftConfig
from pretrain.attention.source import Energy

Form = Callable[[Energy, list[float], list[float]], float]


def energy(*, initial: float | None = -0.7) -> Energy:
    """Of three numbers and two, five wide, with a scale and direction of no special length."""
    made = Energy(3, 2, 5, initial=initial).double()
    with torch.no_grad():
        made.scale_1.fill_(1.7)
        made.direction_A.mul_(2.5)
    return made


def by_hand(made: Energy, s: list[float], h: list[float]) -> float:
    """g v . tanh(W s + V h + b) / |v| + r, number by number (Raffel et al. 2017, equation 16)."""
    w, b, v_matrix = made.query.weight.tolist(), made.query.bias.tolist(), made.memory.weight.tolist()
    v = made.direction_A.tolist()
    hidden = [
        math.tanh(
            sum(x * y for x, y in zip(w[a], s, strict=True)) + b[a] + sum(x * y for x, y in zip(u, h, strict=True))
        )
        for a, u in enumerate(v_matrix)
    ]
    along = sum(x * y for x, y in zip(v, hidden, strict=True)) / math.sqrt(sum(x * x for x in v))
    return float(made.scale_1) * along + (0.0 if made.offset_1 is None else float(made.offset_1))


def multiplied(made: Energy, s: list[float], h: list[float]) -> float:
    """Mutant: W s times V h."""
    q_A = made.query(torch.tensor(s, dtype=torch.float64))
    hidden_A = (q_A * made.memory(torch.tensor(h, dtype=torch.float64))).tanh()
    return float(made.scale_1 * (hidden_A @ made.direction_A) / made.direction_A.norm() + made.offset_1)


def of_any_length(made: Energy, s: list[float], h: list[float]) -> float:
    """Mutant: the direction as it is."""
    offset = float(made.offset_1)
    return (by_hand(made, s, h) - offset) * float(made.direction_A.norm()) + offset


def lowered(made: Energy, s: list[float], h: list[float]) -> float:
    """Mutant: r taken away."""
    return by_hand(made, s, h) - 2 * float(made.offset_1)


def distance(form: Form, made: Energy) -> float:
    s_RTQ, h_RSM = torch.randn(2, 4, 3).double(), torch.randn(2, 6, 2).double()
    found_RTS = made(s_RTQ, h_RSM)
    assert found_RTS.shape == (2, 4, 6)
    every = [[[form(made, s, h) for h in h_SM] for s in s_TQ]
             for s_TQ, h_SM in zip(s_RTQ.tolist(), h_RSM.tolist(), strict=True)]  # fmt: skip
    return float((found_RTS - torch.tensor(every, dtype=torch.float64)).abs().max())


@torch.no_grad()
def test_energies_are_those_of_the_equation() -> None:
    assert distance(by_hand, energy()) < 1e-12
    assert distance(by_hand, energy(initial=None)) < 1e-12
    assert float(energy(initial=-0.7).offset_1) == pytest.approx(-0.7)


@pytest.mark.parametrize("mutant", [multiplied, of_any_length, lowered])
@torch.no_grad()
def test_other_energies_are_not(mutant: Form) -> None:
    assert distance(mutant, energy()) > 1e-3


def soft() -> SoftAttention:
    return SoftConfig(kind="soft", width=5).build(3, 2).double()


def softmax_over_all(energies_RTS: Tensor, present_RS: Tensor) -> Tensor:
    """Mutant: padding has a part."""
    return energies_RTS.softmax(-1)


def squashed(energies_RTS: Tensor, present_RS: Tensor) -> Tensor:
    """Mutant: each position for itself; no row is a distribution."""
    return energies_RTS.sigmoid() * present_RS[:, None]


def bounded(energies_RTS: Tensor, present_RS: Tensor) -> Tensor:
    """Mutant: energies between -1 and 1, however far apart they were."""
    return energies_RTS.tanh().masked_fill(~present_RS[:, None], -torch.inf).softmax(-1)


Weights = Callable[[Tensor, Tensor], Tensor]
PRESENT_RS = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])


def rows_are_distributions(weights_RTS: Tensor) -> bool:
    inside_RT = (weights_RTS * PRESENT_RS[:, None]).sum(-1)
    return bool((inside_RT - 1).abs().max() < 1e-12) and bool((weights_RTS >= 0).all())


@torch.no_grad()
def test_what_soft_attention_reads_of_the_source_sums_to_one() -> None:
    attention, s_RTQ, h_RSM = soft(), torch.randn(2, 4, 3).double(), torch.randn(2, 6, 2).double()
    for hard in (False, True):
        assert rows_are_distributions(attention(s_RTQ, h_RSM, PRESENT_RS, hard=hard).weights)
    assert float(attention.weights(s_RTQ[0, :1], h_RSM[0]).sum()) == pytest.approx(1, abs=1e-12)
    for mutant in (softmax_over_all, squashed):
        assert not rows_are_distributions(mutant(attention.energy(s_RTQ, h_RSM), PRESENT_RS))


def looks_up(weights: Weights, attention: SoftAttention, s_RTQ: Tensor, h_RSM: Tensor) -> bool:
    """Whether the best key has all of the weight but (S - 1) exp(-gap), the gap that to the second, as it grows."""
    for scale in (1.0, 10.0, 100.0, 1e4):
        attention.energy.scale_1.fill_(scale)
        energies_RTS = attention.energy(s_RTQ, h_RSM)
        two_RT2 = energies_RTS.masked_fill(~PRESENT_RS[:, None], -torch.inf).topk(2).values
        left_RT = 1 - weights(energies_RTS, PRESENT_RS).max(-1).values
        if bool((left_RT > 5 * (two_RT2[..., 1] - two_RT2[..., 0]).exp() + 1e-12).any()):
            return False
    return True


@torch.no_grad()
def test_soft_attention_is_a_dictionary_where_the_best_key_is_far_from_the_others() -> None:
    attention, s_RTQ, h_RSM = soft(), torch.randn(2, 4, 3).double(), torch.randn(2, 6, 2).double()
    right: Weights = lambda _, present_RS: attention(s_RTQ, h_RSM, present_RS, hard=False).weights  # noqa: E731
    assert looks_up(right, attention, s_RTQ, h_RSM)
    assert not looks_up(bounded, attention, s_RTQ, h_RSM)


@pytest.mark.parametrize("width", [1, 2, 3, 9])
@torch.no_grad()
def test_a_chunk_is_as_wide_as_the_config_says(width: int) -> None:
    """In a batch and as a stream, which computes energies of the chunk alone."""
    attention = ChunkwiseConfig(kind="chunkwise", width=4, chunk_width=width).build(3, 2).double()
    s_1Q, h_JM = torch.randn(1, 3).double(), torch.randn(6, 2).double()
    read_J = attention.weights(s_1Q, h_JM)
    assert (read_J > 0).tolist() == [j >= 6 - width for j in range(6)]
    certain = torch.zeros(1, 1, 6).double()
    certain[..., -1] = 1
    batch_J = attention.spread(certain, s_1Q[None], h_JM[None], torch.ones(1, 6, dtype=torch.bool))[0, 0]
    assert torch.allclose(read_J, batch_J, atol=1e-12)
