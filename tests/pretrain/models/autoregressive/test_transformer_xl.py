"""Transformer-XL by identity: segments with memory are one long pass, and nothing else is.

Shape legend: B rows, L positions, M memory, K = M + L keys, H heads, D head width, W width, T distances, V vocabulary.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from data_pipeline.batch import IGNORED
from kernels.relative_attention import reference
from pretrain.attention.relative import sinusoids
from pretrain.contract import Carry
from pretrain.models import TransformerXLConfig
from pretrain.models.autoregressive.transformer_xl import TransformerXL

VOCABULARY = 11
BOTH_NORMS = pytest.mark.parametrize("norm", ["post", "pre"])


def configure(**settings: Any) -> TransformerXLConfig:
    sizes = {
        "num_layers": 3,
        "width": 8,
        "num_heads": 2,
        "head_width": 3,
        "inner_width": 10,
        "segment_length": 4,
        "memory_length": 4,
    }
    return TransformerXLConfig(kind="transformer_xl", **{"vocab_size": VOCABULARY, **sizes, **settings})


def tokens_of(rows: int, length: int) -> Tensor:
    return torch.randint(VOCABULARY, (rows, length))


def ages_of(tokens_BL: Tensor) -> Tensor:
    return torch.arange(tokens_BL.shape[1]).expand_as(tokens_BL)


def in_one_pass(model: TransformerXL, tokens_BL: Tensor, age_BL: Tensor | None = None) -> Tensor:
    """[B, L, V] without any memory."""
    h_BLW, _ = model.hidden(tokens_BL, ages_of(tokens_BL) if age_BL is None else age_BL, {})
    return model.vocabulary.logits(h_BLW)


def unchanged(memory: Carry) -> Carry:
    return memory


def in_segments(
    model: TransformerXL,
    tokens_BL: Tensor,
    length: int,
    memory_length: int,
    *,
    age_BL: Tensor | None = None,
    between: Callable[[Carry], Carry] = unchanged,
) -> Tensor:
    """[B, L, V] segment after segment, each handed the memory of those before."""
    age_BL = ages_of(tokens_BL) if age_BL is None else age_BL
    memory = model.empty_memory(len(tokens_BL), memory_length)
    parts = []
    for segment, ages in zip(tokens_BL.split(length, dim=1), age_BL.split(length, dim=1), strict=True):
        h_BLW, memory = model.hidden(segment, ages, memory)
        memory = between(memory)
        parts.append(model.vocabulary.logits(h_BLW))
    return torch.cat(parts, dim=1)


def assert_equal(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-11)


@BOTH_NORMS
@pytest.mark.parametrize("length", [1, 3, 5])
def test_segments_with_unbounded_memory_are_one_pass(norm: str, length: int, randomised: Any) -> None:
    model, tokens = randomised(configure(norm=norm).build()), tokens_of(2, 12)
    assert_equal(in_segments(model, tokens, length, 12), in_one_pass(model, tokens))


@pytest.mark.parametrize(
    "mutant",
    [
        pytest.param(lambda memory: {n: m.roll(1, dims=1) for n, m in memory.items()}, id="shifted"),
        pytest.param(lambda memory: {n: m.flip(0) for n, m in memory.items()}, id="of another row"),
        pytest.param(lambda memory: dict(zip(memory, [*list(memory.values())[1:], memory["memory.00"]], strict=True)),
                     id="of another layer"),
        pytest.param(lambda memory: {n: torch.zeros_like(m) for n, m in memory.items()}, id="lost"),
    ],
)  # fmt: skip
def test_wrong_memory_fails(mutant: Callable[[Carry], Carry], randomised: Any) -> None:
    model, tokens = randomised(configure().build()), tokens_of(2, 12)
    with pytest.raises(AssertionError):
        assert_equal(in_segments(model, tokens, 3, 12, between=mutant), in_one_pass(model, tokens))


@BOTH_NORMS
@pytest.mark.parametrize("length", [1, 3, 8])
def test_bounded_memory_of_the_same_length_is_a_band(norm: str, length: int, randomised: Any) -> None:
    model, tokens = randomised(configure(norm=norm, same_length=True).build()), tokens_of(2, 16)
    band = ages_of(tokens).clamp(max=4)
    assert_equal(in_segments(model, tokens, length, 4), in_one_pass_unclamped(model, tokens, band))


def in_one_pass_unclamped(model: TransformerXL, tokens_BL: Tensor, band_BL: Tensor) -> Tensor:
    """One pass whose window is exactly `band_BL`: a model of the same weights without same_length."""
    plain = model.config.model_copy(update={"same_length": False}).build().double().eval()
    plain.load_state_dict(model.state_dict())
    return in_one_pass(plain, tokens_BL, band_BL)


def test_bounded_memory_without_same_length_is_no_band(randomised: Any) -> None:
    model, tokens = randomised(configure().build()), tokens_of(2, 16)
    with pytest.raises(AssertionError):
        assert_equal(in_segments(model, tokens, 3, 4), in_one_pass(model, tokens, ages_of(tokens).clamp(max=4)))


class EmbeddingProbe:
    """Keeps what the model embeds, to ask for its gradient."""

    def __init__(self, model: TransformerXL) -> None:
        self.embed = model.vocabulary.embed
        self.seen: list[Tensor] = []

    def __call__(self, tokens: Tensor) -> Tensor:
        self.seen.append(self.embed(tokens).data.clone().requires_grad_())
        return self.seen[-1]


def check_reach_of_gradient(model: TransformerXL, window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one segment, where no memory is detached."""
    probe, reach = EmbeddingProbe(model), model.config.num_layers * window
    tokens = tokens_of(1, reach + 4)
    with monkeypatch.context() as patch:
        patch.setattr(model.vocabulary, "embed", probe)
        logits = in_segments(model, tokens, tokens.shape[1], window)[0, -1]
    (slope,) = torch.autograd.grad((logits * torch.randn_like(logits)).sum(), probe.seen[0])
    touched = slope[0].abs().amax(-1) > 0
    assert touched.tolist() == [False] * 3 + [True] * (reach + 1)


@BOTH_NORMS
@pytest.mark.parametrize(("num_layers", "window"), [(3, 4), (2, 5), (1, 3)])
def test_gradient_reaches_exactly_layers_times_window(
    norm: str, num_layers: int, window: int, randomised: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(norm=norm, num_layers=num_layers, memory_length=window, same_length=True)
    model, true_mask = randomised(config.build()), reference.window_mask
    check_reach_of_gradient(model, window, monkeypatch)
    for wrong in (1, -1):
        monkeypatch.setattr(reference, "window_mask", lambda w, keys, wrong=wrong: true_mask(w + wrong, keys))
        with pytest.raises(AssertionError):
            check_reach_of_gradient(model, window, monkeypatch)


@BOTH_NORMS
def test_values_reach_as_far_through_memory(norm: str, randomised: Any) -> None:
    model, tokens = randomised(configure(norm=norm, same_length=True).build()), tokens_of(1, 18)
    reach = 3 * 4
    before = in_segments(model, tokens, 3, 4)[0, -1]
    for distance, reaches in ((reach, True), (reach + 1, False)):
        changed = tokens.clone()
        changed[0, -1 - distance] = (changed[0, -1 - distance] + 1) % VOCABULARY
        assert torch.equal(in_segments(model, changed, 3, 4)[0, -1], before) is not reaches


def check_detached_memory(model: TransformerXL, tokens_BL: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    probe, age_BL = EmbeddingProbe(model), ages_of(tokens_BL)
    with monkeypatch.context() as patch:
        patch.setattr(model.vocabulary, "embed", probe)
        h_BLW, memory = model.hidden(tokens_BL[:, :4], age_BL[:, :4], model.empty_memory(2, 4))
        assert h_BLW.requires_grad
        h_BLW, _ = model.hidden(tokens_BL[:, 4:], age_BL[:, 4:], memory)
    first, second = torch.autograd.grad(h_BLW.square().sum(), probe.seen, allow_unused=True)
    assert first is None
    assert second.abs().max() > 0


def test_no_gradient_goes_into_memory_but_values_come_out(randomised: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokens = randomised(configure().build()), tokens_of(2, 8)
    check_detached_memory(model, tokens, monkeypatch)
    changed = tokens.clone()
    changed[:, 3] = (changed[:, 3] + 1) % VOCABULARY
    assert not torch.equal(in_segments(model, changed, 4, 4)[:, 4:], in_segments(model, tokens, 4, 4)[:, 4:])
    monkeypatch.setattr(torch.Tensor, "detach", lambda self: self)
    with pytest.raises(AssertionError):
        check_detached_memory(model, tokens, monkeypatch)


@BOTH_NORMS
def test_memory_of_keys_and_values_is_the_same_while_weights_stand_still(norm: str, randomised: Any) -> None:
    """They were projected with the same weights; in training their gradient is what is left out."""
    states = randomised(configure(norm=norm).build())
    cached = configure(norm=norm, memory_of="keys_and_values").build().double()
    cached.load_state_dict(states.state_dict())
    tokens = tokens_of(2, 12)
    assert_equal(in_segments(cached, tokens, 4, 4), in_segments(states, tokens, 4, 4))
    gradients = [
        torch.autograd.grad(in_segments(model, tokens, 4, 4).square().sum(), model.blocks[0].attention.key_value.weight)
        for model in (states, cached)
    ]
    assert (gradients[0][0] - gradients[1][0]).norm() > 0.01 * gradients[0][0].norm()


def perplexity(model: TransformerXL, tokens_BL: Tensor, length: int, memory_length: int, token_batch: Any) -> float:
    """Of a whole stream, each segment scored by the model's own loss with the carry of those before."""
    carry = model.empty_memory(len(tokens_BL), memory_length)
    total, count = 0.0, 0
    labels_BL, age_BL = tokens_BL[:, 1:], ages_of(tokens_BL)
    for start in range(0, labels_BL.shape[1], length):
        place = slice(start, min(start + length, labels_BL.shape[1]))
        batch = token_batch(tokens_BL[:, :-1][:, place], labels_BL[:, place], age_BL[:, :-1][:, place])
        loss = model(batch, carry, player="model", step=0)
        total, count, carry = total + loss.total.item(), count + loss.count, loss.carry
    return math.exp(total / count)


@pytest.mark.parametrize("same_length", [True, False])
def test_perplexity_does_not_depend_on_the_segments(same_length: bool, randomised: Any, token_batch: Any) -> None:
    """With a bounded memory of the same length, or with memory for everything."""
    model = randomised(configure(same_length=same_length).build())
    tokens, memory_length = tokens_of(3, 31), 5 if same_length else 31
    values = [perplexity(model, tokens, length, memory_length, token_batch) for length in (1, 4, 7, 30)]
    assert max(values) - min(values) < 1e-10 * values[0]


def test_perplexity_with_too_little_memory_does_depend_on_them(randomised: Any, token_batch: Any) -> None:
    model, tokens = randomised(configure().build()), tokens_of(3, 31)
    values = [perplexity(model, tokens, length, 5, token_batch) for length in (1, 4)]
    assert abs(values[0] - values[1]) > 1e-6 * values[0]


@pytest.mark.parametrize("boundary", [2, 4, 6])
def test_another_document_leaves_no_trace(boundary: int, randomised: Any) -> None:
    """Within a segment, at its edge and from memory: bit-identical whatever the document before says."""
    model, tokens = randomised(configure().build()), tokens_of(2, 10)
    age = ages_of(tokens).clone()
    age[:, boundary:] -= boundary
    changed = tokens.clone()
    changed[:, :boundary] = (changed[:, :boundary] + 1) % VOCABULARY
    before, after = (in_segments(model, t, 4, 4, age_BL=age)[:, boundary:] for t in (tokens, changed))
    assert torch.equal(before, after)
    before, after = (in_segments(model, t, 4, 4)[:, boundary:] for t in (tokens, changed))
    assert not torch.equal(before, after)


def test_a_document_reads_as_if_it_were_alone(randomised: Any) -> None:
    model, tokens = randomised(configure().build()), tokens_of(2, 9)
    age = ages_of(tokens).clone()
    age[:, 5:] -= 5
    assert_equal(in_segments(model, tokens, 3, 9, age_BL=age)[:, 5:], in_one_pass(model, tokens[:, 5:]))


def test_clamped_distances_share_an_encoding(randomised: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = tokens_of(2, 9)
    model = randomised(configure(clamp_length=2).build())
    clamped = in_one_pass(model, tokens)
    table_TW = sinusoids(9, 8, like=clamped)

    def full_table(num_keys: int, like: Tensor) -> Tensor:
        return table_TW[torch.arange(num_keys).clamp(max=2)]

    monkeypatch.setattr(model, "_distances", full_table)
    assert_equal(in_one_pass(model, tokens), clamped)
    monkeypatch.setattr(model, "_distances", lambda num_keys, like: table_TW[:num_keys])
    assert not torch.allclose(in_one_pass(model, tokens), clamped)


def test_sinusoids() -> None:
    table_TW = sinusoids(7, 6, like=torch.zeros(1, dtype=torch.float64))
    for t in range(7):
        for pair in range(3):
            angle = t / 10000 ** (2 * pair / 6)
            assert float(table_TW[t, pair]) == pytest.approx(math.sin(angle), abs=1e-6)
            assert float(table_TW[t, 3 + pair]) == pytest.approx(math.cos(angle), abs=1e-6)


def original_logits(model: TransformerXL, tokens_BL: Tensor, memory: Sequence[Tensor]) -> Tensor:
    """As the paper's code: q, k and v from memory and segment in one product, then the queries of the segment cut out.

    Distances are looked up by index rather than shifted.
    """
    config = model.config
    h_BLW = model.vocabulary.embed(tokens_BL)
    length, keys = tokens_BL.shape[1], memory[0].shape[1] + tokens_BL.shape[1]
    distance_LK = torch.arange(length)[:, None] + (keys - length) - torch.arange(keys)
    r_LKW = sinusoids(keys, config.width, like=h_BLW)[distance_LK.clamp(min=0)]
    for block, memory_BMW in zip(model.blocks, memory, strict=True):
        attention, biases = block.attention, model.shared_biases or block.biases
        both_BKW = torch.cat([memory_BMW, h_BLW], dim=1)
        seen_BKW = block.attention_norm(both_BKW) if config.norm == "pre" else both_BKW
        weight = torch.cat([attention.query.weight, attention.key_value.weight])
        q, k, v = F.linear(seen_BKW, weight).unflatten(-1, (3, config.num_heads, -1)).unbind(2)
        q = q[:, -length:]
        r = attention.distance(r_LKW).unflatten(-1, (config.num_heads, -1))
        scores = torch.einsum("blhd,bkhd->bhlk", q + biases.u_HD, k)
        scores = scores + torch.einsum("blhd,lkhd->bhlk", q + biases.w_HD, r)
        scores = (scores / math.sqrt(config.head_width)).masked_fill(distance_LK < 0, float("-inf"))
        h_BLW = h_BLW + attention.output(torch.einsum("bhlk,bkhd->blhd", scores.softmax(-1), v).flatten(2))
        inner, outer, norms = block.feed_forward.inner, block.feed_forward.output, config.norm
        if norms == "post":
            h_BLW = block.attention_norm(h_BLW)
            h_BLW = block.feed_forward_norm(h_BLW + outer(inner(h_BLW).relu()))
        else:
            h_BLW = h_BLW + outer(inner(block.feed_forward_norm(h_BLW)).relu())
    return model.vocabulary.logits(model.final_norm(h_BLW))


@BOTH_NORMS
@pytest.mark.parametrize("share_biases", [True, False])
def test_values_and_gradients_equal_the_original_formulation(norm: str, share_biases: bool, randomised: Any) -> None:
    model = randomised(configure(norm=norm, share_biases=share_biases).build())
    tokens, weights = tokens_of(2, 4), torch.randn(2, 4, VOCABULARY, dtype=torch.float64)
    memory = {f"memory.{i:02d}": torch.randn(2, 4, 8, dtype=torch.float64) for i in range(3)}
    h_BLW, _ = model.hidden(tokens, ages_of(tokens) + 4, memory)
    ours, theirs = model.vocabulary.logits(h_BLW), original_logits(model, tokens, list(memory.values()))
    assert_equal(ours, theirs)
    parameters = list(model.parameters())
    pairs = zip(
        torch.autograd.grad((ours * weights).sum(), parameters),
        torch.autograd.grad((theirs * weights).sum(), parameters),
        strict=True,
    )
    for mine, original in pairs:
        assert original.abs().max() > 0
        torch.testing.assert_close(mine, original, rtol=1e-10, atol=1e-10)


def gradients(model: TransformerXL, batch: Any, carry: Carry) -> list[Tensor]:
    torch.manual_seed(5)
    loss = model(batch, carry, player="model", step=0)
    return list(torch.autograd.grad(loss.total, list(model.parameters())))


def test_checkpointed_activations_give_the_same_bits(token_batch: Any) -> None:
    model = configure(dropout=0.3, attention_dropout=0.2).build().train()
    carry = {name: torch.randn_like(value) for name, value in model.initial_carry(2).items()}
    batch = token_batch(tokens_of(2, 4), age_BL=torch.full((2, 4), 9))
    plain = gradients(model, batch, carry)
    model.checkpoint_activations = True
    for one, other in zip(plain, gradients(model, batch, carry), strict=True):
        assert torch.equal(one, other)


def total_probability(model: TransformerXL, token_batch: Any) -> float:
    """Over all texts of three tokens that follow a given one."""
    labels = torch.cartesian_prod(*[torch.arange(3)] * 3)
    inputs = torch.cat([torch.ones_like(labels[:, :1]), labels[:, :-1]], dim=1)
    return model.log_prob(token_batch(inputs, labels)).exp().sum().item()


def test_probabilities_sum_to_one(randomised: Any, token_batch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = randomised(configure(vocab_size=3).build())
    assert total_probability(model, token_batch) == pytest.approx(1.0, abs=1e-12)
    monkeypatch.setattr(
        reference, "window_mask", lambda window, keys: torch.zeros(*window[:, None].shape, keys, dtype=torch.bool)
    )
    assert abs(total_probability(model, token_batch) - 1.0) > 1e-6


@pytest.mark.parametrize("chunks", [[1] * 10, [4, 1, 5], [10]])
def test_advancing_equals_reading_at_once(chunks: list[int], randomised: Any) -> None:
    model, tokens = randomised(configure(memory_length=10).build()), tokens_of(2, 10)
    state = model.begin(2)
    for chunk in tokens.split(chunks, dim=1):
        logits_RV, state = model.advance(chunk, state)
    assert_equal(logits_RV, in_one_pass(model, tokens)[:, -1])
    assert state["seen"].tolist() == [10, 10]


@pytest.mark.parametrize(("length", "memory_length"), [(4, 2), (2, 4), (3, 3), (3, 0)])
def test_carry_keeps_its_shape_and_is_detached(length: int, memory_length: int, token_batch: Any) -> None:
    model = configure(memory_length=memory_length).build()
    carry = model.initial_carry(2)
    loss = model(token_batch(tokens_of(2, length)), carry, player="model", step=0)
    assert {n: v.shape for n, v in loss.carry.items()} == {n: v.shape for n, v in carry.items()}
    assert not any(value.requires_grad for value in loss.carry.values())
    assert len(carry) == (3 if memory_length else 0)


def test_ignored_labels_neither_count_nor_cost(randomised: Any, token_batch: Any) -> None:
    model, tokens = randomised(configure().build()), tokens_of(2, 4)
    labels = tokens.roll(-1, dims=1)
    nats, _ = model.token_nats(token_batch(tokens, labels), None)
    ignored = labels.clone()
    ignored[0, 1:3] = IGNORED
    loss = model(token_batch(tokens, ignored), None, player="model", step=0)
    assert loss.count == 6
    assert_equal(loss.total, nats[ignored != IGNORED].sum())


def test_adaptive_vocabulary_serves_it(randomised: Any, token_batch: Any) -> None:
    vocabulary = {"kind": "adaptive", "cutoffs": [4, 8], "div_val": 2, "embedding_width": 8}
    model, tokens = randomised(configure(vocabulary=vocabulary).build()), tokens_of(3, 5)
    batch = token_batch(tokens)
    nats, _ = model.token_nats(batch, None)
    assert_equal(nats, -in_one_pass(model, tokens).gather(-1, batch.labels[..., None])[..., 0])
    slopes = torch.autograd.grad(nats.sum(), list(model.parameters()))
    assert all(slope.isfinite().all() for slope in slopes)


def test_flops_are_those_that_torch_counts(token_batch: Any) -> None:
    """Less those of masked scores, and of the distances' projection, which all rows share."""
    model, rows, length, memory_length = configure().build(), 2, 4, 4
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(token_batch(tokens_of(rows, length)), model.initial_carry(rows), player="model", step=0)
    inner, keys = 6, memory_length + length
    masked = 3 * 6 * inner * (keys - (memory_length + (length + 1) / 2))
    distances = 3 * 2 * keys * 8 * inner
    assert counter.get_total_flops() == rows * length * (model.flops_per_count() + masked) + distances


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"same_length": True, "memory_length": 0}, "same_length needs memory_length"),
        ({"vocabulary": {"kind": "adaptive", "cutoffs": [5, 5], "embedding_width": 8}}, "must rise strictly"),
        ({"vocabulary": {"kind": "adaptive", "cutoffs": [11], "embedding_width": 8}}, "between 0 and vocab_size 11"),
        (
            {"vocabulary": {"kind": "adaptive", "cutoffs": [3, 6], "div_val": 4, "embedding_width": 8}},
            "nothing for the last cluster",
        ),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        configure(**settings)
