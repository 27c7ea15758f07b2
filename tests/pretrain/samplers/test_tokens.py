"""Sampling against brute force, from a model whose probabilities are written down."""

from collections.abc import Callable
from itertools import combinations
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from data_pipeline.config import BadInput
from pretrain.contract import Carry
from pretrain.models import GPTConfig, TransformerXLConfig
from pretrain.samplers.tokens import generate, keep_top_k, keep_top_p

NEVER = float("-inf")


class Bigrams:
    """The next token depends on the last one by a table of logits."""

    def __init__(self, logits_VV: Tensor) -> None:
        self.logits_VV = logits_VV

    def begin(self, rows: int) -> Carry:
        return {"last": torch.zeros(rows, dtype=torch.int64)}

    def advance(self, tokens_RL: Tensor, state: Carry) -> tuple[Tensor, Carry]:
        last_R = tokens_RL[:, -1]
        return self.logits_VV[last_R], {"last": last_R}


def random_bigrams(size: int = 6) -> Bigrams:
    return Bigrams(torch.randn(size, size))


def kept(logits: Tensor) -> list[int]:
    return [token for token, value in enumerate(logits.tolist()) if value != NEVER]


def check_nucleus(keep: Callable[[Tensor, float], Tensor], p: float) -> None:
    """Against every set of tokens: none that is smaller reaches p, none of the same size holds more."""
    for seed in range(20):
        torch.manual_seed(seed)
        logits = 2 * torch.randn(6, dtype=torch.float64)
        mass, left = logits.softmax(0).tolist(), kept(keep(logits, p))
        assert sum(mass[token] for token in left) >= p
        for size in range(len(left)):
            assert all(sum(mass[token] for token in others) < p for others in combinations(range(6), size))
        rivals = [sum(mass[token] for token in others) for others in combinations(range(6), len(left))]
        assert abs(sum(mass[token] for token in left) - max(rivals)) < 1e-15


@pytest.mark.parametrize("p", [0.05, 0.3, 0.5, 0.9, 0.999])
def test_top_p_keeps_the_smallest_set_with_that_mass(p: float) -> None:
    check_nucleus(keep_top_p, p)


def one_too_few(logits: Tensor, p: float) -> Tensor:
    return keep_top_k(logits, max(len(kept(keep_top_p(logits, p))) - 1, 1))


def one_too_many(logits: Tensor, p: float) -> Tensor:
    return keep_top_k(logits, len(kept(keep_top_p(logits, p))) + 1)


def all_that_are_likely(logits: Tensor, p: float) -> Tensor:
    return logits.masked_fill(logits.softmax(-1) < 1 - p, NEVER)


@pytest.mark.parametrize("mutant", [one_too_few, one_too_many, all_that_are_likely])
def test_a_wrong_nucleus_fails(mutant: Callable[[Tensor, float], Tensor]) -> None:
    with pytest.raises(AssertionError):
        check_nucleus(mutant, 0.5)


def test_filters_leave_what_they_keep_as_it_was() -> None:
    logits = torch.randn(4, 9)
    for filtered in (keep_top_k(logits, 3), keep_top_p(logits, 0.6)):
        assert torch.equal(filtered[filtered != NEVER], logits[filtered != NEVER])
    assert torch.equal(keep_top_k(logits, 9), logits)
    assert torch.equal(keep_top_k(logits, 99), logits)
    assert torch.equal(keep_top_p(logits, 1.0), logits)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_top_k_keeps_the_k_largest(k: int) -> None:
    logits = torch.randn(8, 6)
    for row, filtered in zip(logits, keep_top_k(logits, k), strict=True):
        assert set(kept(filtered)) == set(sorted(range(6), key=lambda token: -row[token])[:k])
    assert len(kept(keep_top_k(torch.zeros(6), k))) == k, "equals are cut too"


def test_temperature_zero_follows_the_likeliest() -> None:
    model, token, expected = random_bigrams(), 3, []
    for _ in range(9):
        token = int(model.logits_VV[token].argmax())
        expected.append(token)
    assert generate(model, [1, 3], num_tokens=9, temperature=0.0).tolist() == [expected]


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({}, [0.4, 0.3, 0.2, 0.1]),
        ({"temperature": 0.5}, [16 / 30, 9 / 30, 4 / 30, 1 / 30]),
        ({"top_k": 2}, [4 / 7, 3 / 7, 0, 0]),
        ({"top_p": 0.75}, [4 / 9, 3 / 9, 2 / 9, 0]),
        ({"top_k": 3, "top_p": 0.75}, [4 / 7, 3 / 7, 0, 0]),
        ({"temperature": 0.5, "top_p": 0.8}, [16 / 25, 9 / 25, 0, 0]),
    ],
)
def test_frequencies(settings: dict[str, Any], wanted: list[float]) -> None:
    """After the filters: temperature first, then k, then p of what k left."""
    model = Bigrams(torch.tensor([[0.4, 0.3, 0.2, 0.1]]).log().expand(4, 4))
    drawn = generate(model, [0], num_tokens=1, rows=3000, seed=1, **settings)[:, 0]
    counts = drawn.bincount(minlength=4).tolist()
    possible = [token for token in range(4) if wanted[token] > 0]
    assert sum(counts[token] for token in possible) == 3000
    expected = [3000 * wanted[token] for token in possible]
    assert stats.chisquare([counts[token] for token in possible], expected).pvalue > 1e-4


def test_the_seed_alone_decides() -> None:
    model = random_bigrams()
    first = generate(model, [0], num_tokens=12, rows=3, seed=5)
    torch.manual_seed(99)
    assert torch.equal(generate(model, [0], num_tokens=12, rows=3, seed=5), first)
    assert not torch.equal(generate(model, [0], num_tokens=12, rows=3, seed=6), first)
    assert not torch.equal(first[0], first[1])
    assert torch.equal(generate(model, [0], num_tokens=20, rows=7, seed=5)[:3, :12], first)


def test_global_randomness_is_left_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    generate(uniform_bigrams(), [0], num_tokens=3)
    assert torch.equal(torch.rand(4), expected)


def uniform_bigrams() -> Bigrams:
    return Bigrams(torch.zeros(5, 5))


def test_a_stopped_row_repeats_the_stop() -> None:
    model = uniform_bigrams()
    free = generate(model, [0], num_tokens=30, rows=4, seed=2)
    stopped = generate(model, [0], num_tokens=30, rows=4, seed=2, stop_id=4)
    longest = 0
    for free_row, row in zip(free.tolist(), stopped.tolist(), strict=True):
        end = free_row.index(4)
        longest = max(longest, end + 1)
        assert row[: end + 1] == free_row[: end + 1]
        assert set(row[end:]) == {4}
    assert stopped.shape[1] == longest, "it ends where every row has stopped"


MODELS = [
    TransformerXLConfig(
        kind="transformer_xl",
        vocab_size=9,
        num_layers=2,
        width=8,
        num_heads=2,
        head_width=4,
        inner_width=8,
        segment_length=20,
        memory_length=20,
        dropout=0.5,
        initial_std=0.5,
    ),
    GPTConfig(
        kind="gpt",
        vocab_size=9,
        num_layers=2,
        width=8,
        num_heads=2,
        inner_width=8,
        context_length=20,
        dropout=0.5,
        initial_std=0.5,
    ),
]


@pytest.mark.parametrize("config", MODELS, ids=lambda config: config.kind)
def test_real_models_go_on_with_what_a_full_pass_finds_likeliest(config: Any) -> None:
    model: nn.Module = config.build().double().train()
    written = generate(model, [3, 1, 4], num_tokens=8, rows=2, temperature=0.0)
    assert model.training, "the mode is put back"
    model.eval()
    text = [3, 1, 4]
    for token in written[0].tolist():
        logits, _ = model.advance(torch.tensor([text]), model.begin(1))
        assert token == int(logits.argmax())
        text.append(token)
    assert torch.equal(written[0], written[1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompt_ids": []}, "prompt_ids is empty"),
        ({"num_tokens": 0}, "num_tokens is 0"),
        ({"rows": 0}, "rows is 0"),
        ({"temperature": -1.0}, "temperature is -1"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_k": 0}, "top_k is 0"),
        ({"top_p": 0.0}, "top_p is 0"),
        ({"top_p": 1.5}, "top_p is 1.5"),
    ],
)
def test_bad_arguments_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        generate(random_bigrams(), **{"prompt_ids": [0], "num_tokens": 3, **settings})
