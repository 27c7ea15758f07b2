"""GPT by identity: it is a distribution over texts, and its cache changes nothing.

Shape legend: B rows, L positions, H heads, D head width, W model width, V vocabulary.
"""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from data_pipeline.batch import IGNORED
from data_pipeline.config import BadInput
from pretrain.contract import Carry
from pretrain.models import GPTConfig
from pretrain.models.autoregressive.gpt import GPT

VOCABULARY, CONTEXT = 11, 10


def configure(**settings: Any) -> GPTConfig:
    sizes = {"num_layers": 2, "width": 8, "num_heads": 2, "inner_width": 20, "context_length": CONTEXT}
    return GPTConfig(kind="gpt", **{"vocab_size": VOCABULARY, **sizes, **settings})


def tokens_of(rows: int, length: int) -> Tensor:
    return torch.randint(VOCABULARY, (rows, length))


def logits_of(model: GPT, tokens_BL: Tensor, age_BL: Tensor | None = None) -> Tensor:
    """[B, L, V] in one forward pass."""
    age_BL = torch.arange(tokens_BL.shape[1]).expand_as(tokens_BL) if age_BL is None else age_BL
    return model.vocabulary.logits(model.hidden(tokens_BL, age_BL))


def assert_equal(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


def by_formula(model: GPT, tokens_BL: Tensor) -> Tensor:
    """[B, L, V] as the paper has it, every step written out."""
    length, width = tokens_BL.shape[1], model.config.width

    def normalise(x: Tensor, norm: Any) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * norm.weight + norm.bias

    def gelu(x: Tensor) -> Tensor:
        return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))

    h_BLW = model.vocabulary.embedding[tokens_BL] + model.positions[:length]
    for block in model.blocks:
        x = normalise(h_BLW, block.attention_norm)
        weight, bias = block.attention.query_key_value.weight, block.attention.query_key_value.bias
        three = zip(weight.split(width), bias.split(width), strict=True)
        q, k, v = ((x @ w.T + b).unflatten(-1, (2, -1)) for w, b in three)
        scores = torch.einsum("blhd,bkhd->bhlk", q, k) / math.sqrt(width // 2)
        scores = scores + torch.full((length, length), float("-inf"), dtype=torch.float64).triu(1)
        read = torch.einsum("bhlk,bkhd->blhd", scores.softmax(-1), v).flatten(2)
        h_BLW = h_BLW + block.attention.output(read)
        inner = gelu(block.feed_forward.inner(normalise(h_BLW, block.feed_forward_norm)))
        h_BLW = h_BLW + block.feed_forward.output(inner)
    return normalise(h_BLW, model.final_norm) @ model.vocabulary.embedding.T


def test_equals_the_formula(randomised: Any) -> None:
    model, tokens = randomised(configure().build()), tokens_of(3, CONTEXT)
    assert_equal(logits_of(model, tokens), by_formula(model, tokens))


def total_probability(model: GPT, token_batch: Any) -> float:
    """Over all texts of three tokens that follow a given one."""
    labels = torch.cartesian_prod(*[torch.arange(3)] * 3)
    inputs = torch.cat([torch.ones_like(labels[:, :1]), labels[:, :-1]], dim=1)
    return model.log_prob(token_batch(inputs, labels)).exp().sum().item()


def test_probabilities_sum_to_one(randomised: Any, token_batch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = randomised(configure(vocab_size=3).build())
    assert total_probability(model, token_batch) == pytest.approx(1.0, abs=1e-12)
    monkeypatch.setattr(model, "_masked", lambda age: torch.zeros(len(age), 1, 3, 3, dtype=torch.bool))
    assert abs(total_probability(model, token_batch) - 1.0) > 1e-6


def test_uniform_model_has_the_vocabulary_as_perplexity(token_batch: Any) -> None:
    model = configure().build().double()
    with torch.no_grad():
        model.vocabulary.embedding.zero_()
    loss = model(token_batch(tokens_of(2, 7)), None, player="model", step=0)
    assert math.exp(loss.total.item() / loss.count) == pytest.approx(VOCABULARY, rel=1e-14)


def check_causal_gradient(model: GPT, tokens_BL: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    embedded = model.vocabulary.embed(tokens_BL).detach().requires_grad_()
    with monkeypatch.context() as patch:
        patch.setattr(model.vocabulary, "embed", lambda ids: embedded)
        logits = logits_of(model, tokens_BL)
    for position in range(CONTEXT):
        row = logits[0, position]
        (slope,) = torch.autograd.grad((row * torch.randn_like(row)).sum(), embedded, retain_graph=True)
        touched = slope[0].abs().amax(-1) > 0
        assert touched.tolist() == [True] * (position + 1) + [False] * (CONTEXT - position - 1)


def test_gradient_comes_from_the_prefix_alone(randomised: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokens = randomised(configure().build()), tokens_of(1, CONTEXT)
    check_causal_gradient(model, tokens, monkeypatch)
    everything = torch.zeros(1, 1, CONTEXT, CONTEXT, dtype=torch.bool)
    for mutant in (everything, everything.logical_not().triu(2)):
        monkeypatch.setattr(model, "_masked", lambda age, mutant=mutant: mutant)
        with pytest.raises(AssertionError):
            check_causal_gradient(model, tokens, monkeypatch)


def test_without_positions_the_prefix_is_a_set(randomised: Any) -> None:
    """In one layer the last position reads the others in whatever order they stand."""
    model, tokens = randomised(configure(num_layers=1).build()), torch.randperm(VOCABULARY)[None, :CONTEXT]
    moved = torch.cat([tokens[:, :-1].roll(1, dims=1), tokens[:, -1:]], dim=1)
    assert not torch.allclose(logits_of(model, moved)[:, -1], logits_of(model, tokens)[:, -1])
    with torch.no_grad():
        model.positions.zero_()
    assert_equal(logits_of(model, moved)[:, -1], logits_of(model, tokens)[:, -1])


def check_cache(model: GPT, chunks: list[int], corrupt: Callable[[Carry], Carry] = lambda state: state) -> None:
    tokens = tokens_of(2, CONTEXT)
    expected, state, read = logits_of(model, tokens), model.begin(2), 0
    for chunk in tokens.split(chunks, dim=1):
        logits, state = model.advance(chunk, corrupt(state))
        read += chunk.shape[1]
        assert_equal(logits, expected[:, read - 1])


@pytest.mark.parametrize("chunks", [[1] * CONTEXT, [3, 1, 6], [CONTEXT]])
def test_cached_logits_equal_the_full_pass(chunks: list[int], randomised: Any) -> None:
    check_cache(randomised(configure().build()), chunks)


@pytest.mark.parametrize("axis", [0, 1, 2], ids=["of another row", "values for keys", "of another head"])
def test_a_wrong_cache_fails(axis: int, randomised: Any) -> None:
    def corrupt(state: Carry) -> Carry:
        return {name: value.flip(axis) if name == "cache.01" else value for name, value in state.items()}

    with pytest.raises(AssertionError):
        check_cache(randomised(configure().build()), [3, 1, 6], corrupt)


@pytest.mark.parametrize("context_length", [2, 5, 8])
@pytest.mark.parametrize("chunk", [1, 3, 23])
def test_a_full_window_starts_anew_from_its_last_half(context_length: int, chunk: int, randomised: Any) -> None:
    model, tokens = randomised(configure(context_length=context_length).build()), tokens_of(2, 23)
    state, read, window = model.begin(2), 0, tokens[:, :0]
    for piece in tokens.split(chunk, dim=1):
        logits, state = model.advance(piece, state)
        for position in range(read, read + piece.shape[1]):
            if window.shape[1] == context_length:
                window = window[:, context_length - context_length // 2 :]
            window = torch.cat([window, tokens[:, position : position + 1]], dim=1)
        read += piece.shape[1]
        assert_equal(logits, logits_of(model, window)[:, -1])


def test_advancing_leaves_the_state_it_was_given(randomised: Any) -> None:
    """So that several continuations of one prompt can be scored."""
    model, tokens = randomised(configure().build()), tokens_of(2, 6)
    _, state = model.advance(tokens[:, :4], model.begin(2))
    before = {name: value.clone() for name, value in state.items()}
    first, _ = model.advance(tokens[:, 4:5], state)
    model.advance(tokens[:, 5:6], state)
    assert all(torch.equal(before[name], state[name]) for name in before)
    assert torch.equal(model.advance(tokens[:, 4:5], state)[0], first)


def test_the_causal_path_equals_the_masked_one(randomised: Any) -> None:
    model, tokens = randomised(configure().build()), tokens_of(2, CONTEXT)
    whole = torch.arange(CONTEXT).expand_as(tokens)
    assert model._masked(whole) is None
    assert model._masked(whole + 7) is None
    age = whole.clone()
    age[1, 4:] -= 4
    assert model._masked(age) is not None
    assert_equal(logits_of(model, tokens, age)[0], logits_of(model, tokens, whole)[0])


@pytest.mark.parametrize("boundary", [1, 4, 9])
def test_another_document_leaves_no_trace(boundary: int, randomised: Any) -> None:
    model, tokens = randomised(configure().build()), tokens_of(2, CONTEXT)
    age = torch.arange(CONTEXT).repeat(2, 1)
    age[:, boundary:] -= boundary
    changed = tokens.clone()
    changed[:, :boundary] = (changed[:, :boundary] + 1) % VOCABULARY
    before, after = (logits_of(model, t, age)[:, boundary:] for t in (tokens, changed))
    assert torch.equal(before, after)
    before, after = (logits_of(model, t)[:, boundary:] for t in (tokens, changed))
    assert not torch.equal(before, after)


def test_ignored_labels_neither_count_nor_cost(randomised: Any, token_batch: Any) -> None:
    model, tokens = randomised(configure().build()), tokens_of(2, 5)
    labels = tokens.roll(-1, dims=1)
    nats, _ = model.token_nats(token_batch(tokens, labels), None)
    ignored = labels.clone()
    ignored[1, :2] = IGNORED
    loss = model(token_batch(tokens, ignored), None, player="model", step=0)
    assert loss.count == 8
    assert_equal(loss.total, nats[ignored != IGNORED].sum())


def test_checkpointed_activations_give_the_same_bits(token_batch: Any) -> None:
    model, batch = configure(dropout=0.3).build().train(), token_batch(tokens_of(2, 8))

    def gradients() -> list[Tensor]:
        torch.manual_seed(5)
        loss = model(batch, None, player="model", step=0)
        return list(torch.autograd.grad(loss.total, list(model.parameters())))

    plain = gradients()
    model.checkpoint_activations = True
    for one, other in zip(plain, gradients(), strict=True):
        assert torch.equal(one, other)


def test_initial_weights() -> None:
    model = configure(num_layers=8, width=64, inner_width=256, vocab_size=500, context_length=200).build()
    outputs = [o.weight for block in model.blocks for o in (block.attention.output, block.feed_forward.output)]
    others = [i.weight for block in model.blocks for i in (block.attention.query_key_value, block.feed_forward.inner)]
    for weight in outputs:
        assert float(weight.detach().std()) == pytest.approx(0.02 / math.sqrt(16), rel=0.06)
    for weight in [*others, model.positions, model.vocabulary.embedding]:
        assert float(weight.detach().std()) == pytest.approx(0.02, rel=0.06)
    assert all(not p.any() for name, p in model.named_parameters() if name.endswith("bias"))


def test_flops_are_those_that_torch_counts(token_batch: Any) -> None:
    """Less those of masked scores."""
    model, rows = configure().build(), 3
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        model(token_batch(tokens_of(rows, CONTEXT)), None, player="model", step=0)
    masked = 2 * 4 * 8 * (CONTEXT - (CONTEXT + 1) / 2)
    assert counter.get_total_flops() == rows * CONTEXT * (model.flops_per_count() + masked)


def test_errors_name_the_remedy() -> None:
    model = configure().build()
    with pytest.raises(BadInput, match="context_length 10"):
        logits_of(model, tokens_of(1, CONTEXT + 1))
    with pytest.raises(BadInput, match="no token"):
        model.advance(tokens_of(2, 0), model.begin(2))
    with pytest.raises(ValueError, match="multiple of num_heads"):
        configure(num_heads=3)
