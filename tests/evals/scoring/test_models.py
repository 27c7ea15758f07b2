"""Scores of items against each token's probability, one pass for each, in float64."""

import numpy as np
import pytest
import torch

from data_pipeline.batch import TokenBatch
from evals.backends.segue import TransformerXLNetwork, token_model
from evals.scoring import item as items_module
from evals.scoring.encoding import windows
from evals.scoring.item import Group, Item, Segments, batches_of, group_items, score_items
from evals.scoring.memory_model import MemoryModel
from evals.scoring.output_layer import LinearOutput, score_positions
from evals.scoring.window_model import hidden_from_each_other
from pretrain.contract import Model
from pretrain.models import GPTConfig, TransformerXLConfig

VOCABULARY = 13


def gpt() -> Model:
    config = GPTConfig(
        kind="gpt", vocab_size=VOCABULARY, num_layers=2, width=8, num_heads=2, inner_width=16, context_length=24,
        initial_std=0.4,
    )  # fmt: skip
    return config.build().double().eval()


def transformer_xl(memory_length: int = 64) -> Model:
    config = TransformerXLConfig.model_validate({
        "kind": "transformer_xl", "vocab_size": VOCABULARY, "num_layers": 2, "width": 8, "num_heads": 2,
        "head_width": 4, "inner_width": 16, "segment_length": 5, "memory_length": memory_length, "initial_std": 0.4,
    })  # fmt: skip
    return config.build().double().eval()


MODELS = {"gpt": gpt, "transformer_xl": transformer_xl}


def draw_items(seed: int = 0) -> list[Item]:
    """Contexts that several share, of one and of many tokens, continuations of one and of several."""
    generator = np.random.default_rng(seed)

    def draw(length: int) -> np.ndarray:
        return generator.integers(VOCABULARY, size=length)

    contexts = [draw(length) for length in (1, 4, 9, 12)]
    items = [Item(context, draw(length)) for context in contexts for length in (1, 3, 6)]
    return [*items, Item(draw(2), draw(7)), Item(draw(17), draw(1))]


def one_by_one(model: Model, item: Item) -> tuple[list[float], list[bool]]:
    """-log p of each token, and whether it is the likeliest, from a pass over all before it that starts anew."""
    nats, greedy = [], []
    for count in range(len(item.continuation)):
        inputs = torch.from_numpy(np.concatenate([item.context, item.continuation[:count]]))[None]
        rows = []
        for label in range(VOCABULARY):
            labels = torch.full_like(inputs, -100)
            labels[0, -1] = label
            age = torch.arange(inputs.shape[1])[None]
            batch = TokenBatch(inputs, labels, age, torch.zeros(1, dtype=torch.int64))
            with torch.no_grad():
                rows.append(-float(model.log_prob(batch)))
        label = int(item.continuation[count])
        nats.append(rows[label])
        greedy.append(int(np.argmin(rows)) == label)
    return nats, greedy


@pytest.mark.parametrize("name", MODELS)
def test_scores_are_those_of_every_token_alone(name: str) -> None:
    model, items = MODELS[name](), draw_items()
    for item, score in zip(items, score_items(token_model(model, {}), items, rows=4), strict=True):
        nats, greedy = one_by_one(model, item)
        np.testing.assert_allclose(score.nats, nats, rtol=0, atol=1e-11)
        assert score.greedy.tolist() == greedy
        assert score.total == pytest.approx(sum(nats), abs=1e-11)


@pytest.mark.parametrize("name", MODELS)
def test_no_score_depends_on_the_batch(name: str) -> None:
    model, items = token_model(MODELS[name](), {}), draw_items()
    wanted = score_items(model, items, rows=1)
    for rows in (2, 7, 32):
        for one, other in zip(score_items(model, items, rows), wanted, strict=True):
            np.testing.assert_allclose(one.nats, other.nats, rtol=0, atol=1e-12)


@pytest.mark.parametrize("order", [1, -1])
def test_short_memory_forgets_the_same_in_every_batch(order: int) -> None:
    """Segments are cut by the item, not by the batch: with little memory a cut elsewhere would be seen."""
    model, items = token_model(transformer_xl(memory_length=3), {}), draw_items()[::order]
    wanted = score_items(model, items, rows=1)
    for rows in (3, 32):
        for one, other in zip(score_items(model, items, rows), wanted, strict=True):
            np.testing.assert_allclose(one.nats, other.nats, rtol=0, atol=1e-12)


def test_contexts_are_read_in_segments_that_end_where_they_end() -> None:
    """By hand: the context's segments from its end backwards, then the continuation's from its own beginning."""
    model, size = transformer_xl(memory_length=3), 5
    scores = score_items(token_model(model, {}), draw_items(), rows=4)
    for item, score in zip(draw_items(), scores, strict=True):
        before, read = item.context[:-1], np.concatenate([item.context[-1:], item.continuation[:-1]])
        first = len(before) % size
        cuts = [before[:first], *(before[start : start + size] for start in range(first, len(before), size))]
        parts = [*cuts, *(read[start : start + size] for start in range(0, len(read), size))]
        carry, seen, hidden = model.initial_carry(1), 0, []
        for part in [one for one in parts if len(one)]:
            age = torch.arange(seen, seen + len(part))[None]
            with torch.no_grad():
                found, carry = model.hidden(torch.from_numpy(part)[None], age, carry)
            hidden.append(found[0])
            seen += len(part)
        logits = model.vocabulary.logits(torch.cat(hidden)[len(before) :])
        wanted = -logits.log_softmax(-1)[torch.arange(len(read)), torch.from_numpy(item.continuation)]
        np.testing.assert_allclose(score.nats, wanted.detach().numpy(), rtol=0, atol=1e-9)


def test_no_more_memories_are_held_than_contexts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten candidates of each context are read in turns, whatever their lengths."""
    network, most = TransformerXLNetwork(transformer_xl(), {}), 0
    plain = network.hidden

    def hidden(tokens: torch.Tensor, age: torch.Tensor, carry: dict[str, torch.Tensor]) -> object:
        nonlocal most
        most = max(most, len(tokens), *(len(value) for value in carry.values()))
        return plain(tokens, age, carry)

    monkeypatch.setattr(network, "hidden", hidden)
    generator = np.random.default_rng(1)
    contexts = [generator.integers(VOCABULARY, size=size) for size in (8, 6, 7)]
    items = [Item(one, generator.integers(VOCABULARY, size=1 + k % 4)) for one in contexts for k in range(10)]
    scores = score_items(MemoryModel(network, 5), items, rows=3)
    assert most == 3
    wanted = score_items(MemoryModel(network, 5), items, rows=1)
    assert [score.total for score in scores] == pytest.approx([score.total for score in wanted], abs=1e-12)


def test_continuations_that_see_each_other_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def only_the_future(branch_RL: np.ndarray) -> np.ndarray:
        return hidden_from_each_other(np.zeros_like(branch_RL))

    monkeypatch.setattr("evals.scoring.window_model.hidden_from_each_other", only_the_future)
    model, items = gpt(), draw_items()
    scores = score_items(token_model(model, {}), items, rows=4)
    assert any(abs(s.total - sum(one_by_one(model, i)[0])) > 1e-3 for i, s in zip(items, scores, strict=True))


def test_a_barred_likeliest_token_makes_way() -> None:
    model, context = gpt(), np.array([3, 1, 4])
    scores = score_items(token_model(model, {}), [Item(context, np.array([k])) for k in range(VOCABULARY)], rows=32)
    ranked = sorted(range(VOCABULARY), key=lambda k: scores[k].total)
    first, second = ranked[:2]
    for token, barred, right in ((first, set(), True), (second, set(), False), (second, {first}, True)):
        item = Item(context, np.array([token, 0]), frozenset(barred))
        (score,) = score_items(token_model(model, {}), [item], rows=1)
        assert score.greedy_barred == right
        assert bool(score.greedy[0]) == (token == first)


def test_rows_of_logits_are_bounded_and_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model, items = token_model(gpt(), {}), [Item(i.context, i.continuation, frozenset({5})) for i in draw_items()]
    wanted = score_items(model, items, rows=32)
    monkeypatch.setattr("evals.scoring.output_layer.POSITIONS", 3)
    monkeypatch.setattr("evals.scoring.output_layer.LOGITS_OF_A_PART", {"cpu": 15})
    for one, other in zip(score_items(model, items, rows=32), wanted, strict=True):
        np.testing.assert_allclose(one.nats, other.nats, rtol=0, atol=1e-12)
        assert (one.greedy == other.greedy).all()
        assert one.greedy_barred == other.greedy_barred


def test_parts_of_the_vocabulary_agree_on_the_likeliest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small whole numbers, so that many logits are equal: of those the lowest id is the likeliest, as by argmax."""
    generator = torch.Generator().manual_seed(int(np.random.default_rng().integers(1 << 31)))
    hidden_NW = torch.randint(-1, 2, (200, 3), generator=generator).double()
    weight_VW = torch.randint(-1, 2, (VOCABULARY, 3), generator=generator).double()
    label_N = torch.randint(VOCABULARY, (200,), generator=generator).numpy()
    logits_NV = hidden_NW @ weight_VW.T
    nats_N = -logits_NV.log_softmax(1)[torch.arange(200), torch.from_numpy(label_N)]
    left_NV = logits_NV.clone()
    left_NV[::2, [2, 11]] = -torch.inf
    barred = dict.fromkeys(range(0, 200, 2), frozenset({2, 11}))
    for logits in (200, 3 * 200, 5 * 200, VOCABULARY * 200):
        monkeypatch.setattr("evals.scoring.output_layer.LOGITS_OF_A_PART", {"cpu": logits})
        found_N, greedy_N, without_N = score_positions(LinearOutput(weight_VW), hidden_NW, label_N, barred)
        np.testing.assert_allclose(found_N, nats_N.numpy(), rtol=0, atol=1e-12)
        assert greedy_N.tolist() == (logits_NV.argmax(1).numpy() == label_N).tolist()
        assert without_N.tolist() == (left_NV.argmax(1).numpy() == label_N).tolist()


@pytest.mark.parametrize("memory_length", [0, 3, 5, 7, 12])
def test_stretches_of_text_have_the_scores_of_one_stream(memory_length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = token_model(transformer_xl(memory_length), {})
    text = np.random.default_rng(3).integers(VOCABULARY, size=203)
    (whole,) = score_items(model, windows(text, start=0, max_length=None), rows=1)
    monkeypatch.setattr("evals.scoring.encoding.SHORTEST_STRETCH", 20)
    monkeypatch.setattr("evals.scoring.encoding.STRETCH_OF_WARM_UPS", 1)
    assert model.segments is not None
    cut = windows(text, start=0, max_length=None, segments=model.segments)
    assert len(cut) > 4
    for rows in (1, 3, 32):
        found_T = np.concatenate([one.nats for one in score_items(model, cut, rows)])
        np.testing.assert_allclose(found_T, whole.nats, rtol=0, atol=1e-12)
    if memory_length:
        shorter = Segments(model.segments.length, model.segments.warm_up - model.segments.length)
        cut = windows(text, start=0, max_length=None, segments=shorter)
        found_T = np.concatenate([one.nats for one in score_items(model, cut, 3)])
        assert np.abs(found_T - whole.nats).max() > 1e-9, "less of what is before would not do"


@pytest.mark.parametrize("most", [1, 30, 60, 1000])
def test_batches_read_no_more_than_allowed(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """Padded to its longest group; a group that is longer stands alone. Each is in one batch, in order of length."""
    monkeypatch.setattr(items_module, "BATCH_TOKENS", most)
    items = draw_items()
    groups, _ = group_items(items, range(len(items)))
    found = batches_of(groups, rows=4)
    longest_first = sorted((group.num_read for group in groups), reverse=True)
    assert [groups[place].num_read for batch in found for place in batch] == longest_first
    assert sorted(place for batch in found for place in batch) == list(range(len(groups)))
    for batch, following in zip(found, [*found[1:], []], strict=True):
        longest = groups[batch[0]].num_read
        assert len(batch) == 1 or (len(batch) <= 4 and len(batch) * longest <= most)
        assert not following or len(batch) == 4 or (len(batch) + 1) * longest > most, "it is as full as it may be"


@pytest.mark.parametrize("most", [1, 5, 9, 100])
def test_continuations_that_are_long_do_not_share_a_row(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(items_module, "SHARED_TOKENS", most)
    items = draw_items()
    groups, places = group_items(items, [0] * len(items))
    assert sorted(place for own in places for place in own) == list(range(len(items)))
    for group, own in zip(groups, places, strict=True):
        assert [items[place] for place in own] == list(group.items)
        assert len(group.items) == 1 or sum(len(item.continuation) for item in group.items) <= most
    contexts = [group.context.tobytes() for group in groups if len(group.context) > 1]
    if most == 100:
        assert len(contexts) == len(set(contexts)), "what fits together is read together"


@pytest.mark.parametrize("tied", [True, False])
def test_nats_of_running_text_without_all_logits(tied: bool) -> None:
    """A vocabulary of clusters says the nats of labels alone: those of all its logits, of every cluster."""
    config = TransformerXLConfig.model_validate({
        "kind": "transformer_xl", "vocab_size": VOCABULARY, "num_layers": 1, "width": 8, "num_heads": 2,
        "head_width": 4, "inner_width": 16, "segment_length": 5, "memory_length": 5, "initial_std": 0.4,
        "vocabulary": {"kind": "adaptive", "cutoffs": [4, 9], "embedding_width": 8, "div_val": 2, "tied": tied},
    })  # fmt: skip
    model = token_model(config.build().double().eval(), {})
    tokens = np.arange(4 * VOCABULARY) * 5 % VOCABULARY
    items = windows(tokens, start=0, max_length=None)
    (shortly,) = model.score([Group(items[0].context, tuple(items))])
    at_length = [Item(item.context, item.continuation) for item in items]
    (wanted,) = model.score([Group(items[0].context, tuple(at_length))])
    assert set(tokens) == set(range(VOCABULARY))
    np.testing.assert_allclose(shortly[0].nats, wanted[0].nats, rtol=1e-6)
    assert not shortly[0].greedy.any(), "the shorter way does not know the likeliest"
