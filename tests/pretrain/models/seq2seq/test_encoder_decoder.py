"""Translators small enough to enumerate their targets: 2 symbols and the boundary, in float64 with random weights.

Shape legend: R rows, T target positions, S source positions.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from data_pipeline.batch import IGNORED, PairBatch
from data_pipeline.config import BadInput
from data_pipeline.streams.pairs import Pairs, Sequences
from pretrain.attention import source as source_attention
from pretrain.attention.source import Reading
from pretrain.models import Seq2SeqConfig
from pretrain.models.seq2seq.encoder_decoder import Seq2Seq, Written, token_nats

Randomised = Callable[[nn.Module], nn.Module]
BOUNDARY = 2
STOPPING = [
    {"kind": "monotonic", "width": 4},
    {"kind": "chunkwise", "width": 4, "chunk_width": 3},
    {"kind": "infinite_lookback", "width": 4},
]
ATTENTIONS = [{"kind": "soft", "width": 4}, *STOPPING]
every_attention = pytest.mark.parametrize("attention", ATTENTIONS, ids=lambda given: given["kind"])
every_stream = pytest.mark.parametrize("attention", STOPPING, ids=lambda given: given["kind"])


def build(randomised: Randomised, attention: dict[str, Any], **settings: Any) -> Seq2Seq:
    sizes = {"vocab_size": BOUNDARY + 1, "boundary": BOUNDARY, "embedding_width": 3, "width": 5}
    config = Seq2SeqConfig.model_validate({"kind": "seq2seq", **sizes, "attention": attention, **settings})
    model = randomised(config.build())
    assert isinstance(model, Seq2Seq)
    with torch.no_grad():
        model.output.weight.mul_(4.0)
        if attention["kind"] != "soft":
            stop_half_the_time(model)
    return model


def stop_half_the_time(model: Seq2Seq) -> None:
    """Stop logits of either sign, whatever the weights."""
    stop, batch = model.attention.stop, pairs_of(sources(30), sources(30))
    memory_RSW, present_RS = model._encode(batch)
    s_RTW, _ = model.reader(model.target_embedding(batch.inputs))
    energies_RTS = stop(s_RTW, memory_RSW)
    middle = energies_RTS.transpose(1, 2)[present_RS].median()
    spread = (energies_RTS - middle).abs().median()
    stop.offset_1.sub_(middle).div_(spread).sub_(0.01)  # none is so near 0 that rounding decides
    stop.scale_1.div_(spread)


def pairs_of(sources: Iterable[Iterable[int]], targets: Iterable[Iterable[int]]) -> PairBatch:
    pairs = Pairs(Sequences.of(sources), Sequences.of(targets), BOUNDARY)
    return pairs.batch(np.arange(len(pairs)))


def sources(count: int, longest: int = 6) -> list[list[int]]:
    lengths = torch.randint(1, longest + 1, (count,)).tolist()
    return [torch.randint(BOUNDARY, (length,)).tolist() for length in lengths]


def total_probability(model: Seq2Seq, source: list[int], log_prob: Callable[[PairBatch], Tensor], length: int) -> float:
    """Of all targets up to a length that end, and of all beginnings of one token more."""
    ended = [y for n in range(length + 1) for y in itertools.product(range(BOUNDARY), repeat=n)]
    whole = log_prob(pairs_of([source] * len(ended), ended)).exp().sum()
    begun = list(itertools.product(range(BOUNDARY), repeat=length + 1))
    batch = pairs_of([source] * len(begun), begun)
    batch.labels[:, -1] = IGNORED
    return float(whole + log_prob(batch).exp().sum())


@every_attention
@torch.no_grad()
def test_both_distributions_sum_to_one(attention: dict[str, Any], randomised: Randomised) -> None:
    model = build(randomised, attention)
    for source in sources(3):
        for log_prob in (model.log_prob, model.expected_log_prob):
            assert total_probability(model, source, log_prob, 3) == pytest.approx(1.0, abs=1e-9)


@torch.no_grad()
def test_a_reader_that_sees_what_it_predicts_is_no_distribution(randomised: Randomised) -> None:
    """Mutant: the decoder is given the token itself, not the one before."""
    model = build(randomised, ATTENTIONS[0])

    def peeking(batch: PairBatch) -> Tensor:
        seen = batch.labels.clamp(min=0)
        shifted = PairBatch(batch.sources, batch.source_lengths, seen, batch.labels, batch.sample_ids)
        return model.log_prob(shifted)

    assert abs(total_probability(model, [0, 1, 1], peeking, 3) - 1) > 1e-6


@every_attention
@torch.no_grad()
def test_expected_and_streaming_agree_where_stops_are_certain(
    attention: dict[str, Any], randomised: Randomised
) -> None:
    model = build(randomised, attention)
    batch = pairs_of(sources(8), sources(8, 4))
    apart = (model.log_prob(batch) - model.expected_log_prob(batch)).abs()
    if attention["kind"] == "soft":
        assert float(apart.max()) == 0
        return
    assert float(apart.max()) > 1e-6, "uncertain stops"
    model.attention.stop.scale_1.fill_(1e7)
    apart = (model.log_prob(batch) - model.expected_log_prob(batch)).abs()
    assert float(apart.max()) < 1e-9


@every_attention
@torch.no_grad()
def test_padding_changes_nothing(
    attention: dict[str, Any], randomised: Randomised, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build(randomised, attention, latency_weight=0.3)
    xs, ys = sources(6), sources(6, 4)
    xs[0], xs[1], ys[2] = [0], [1] * 9, [1] * 7
    batch = pairs_of(xs, ys)
    alone = [pairs_of([x], [y]) for x, y in zip(xs, ys, strict=True)]

    def apart() -> float:
        each = torch.cat([model.log_prob(one) for one in alone])
        expected = torch.cat([model.expected_log_prob(one) for one in alone])
        together = torch.stack([model.log_prob(batch), model.expected_log_prob(batch)])
        return float((together - torch.stack([each, expected])).abs().max())

    assert apart() < 1e-9
    whole, parts = model(batch, None, player="model", step=0), [model(b, None, player="model", step=0) for b in alone]
    assert float(whole.total) == pytest.approx(sum(float(part.total) for part in parts), abs=1e-9)
    assert whole.count == sum(part.count for part in parts) == sum(len(y) + 1 for y in ys)
    whole_encode = Seq2Seq._encode
    monkeypatch.setattr(
        Seq2Seq, "_encode", lambda self, b: (whole_encode(self, b)[0], torch.ones_like(whole_encode(self, b)[1]))
    )
    assert apart() > 1e-6, "mutant: padding is read"


class Counted:
    """An iterator that knows how many tokens were taken from it, and will tell of the first that is too many."""

    def __init__(self, tokens: list[int]) -> None:
        self.tokens, self.taken = tokens, 0

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        if self.taken == len(self.tokens):
            raise StopIteration
        self.taken += 1
        return self.tokens[self.taken - 1]


def reads_as_it_says(stream: Callable[[Iterable[int]], Iterator[Written]], tokens: list[int]) -> bool:
    """Whether at each written token exactly so many had been taken from the source as it says."""
    source = Counted(tokens)
    return all(source.taken == written.reads for written in stream(source))


def build_impatient(randomised: Randomised, attention: dict[str, Any]) -> Seq2Seq:
    """One of which some streams write before they have read everything, and write on."""
    for _ in range(200):
        model = build(randomised, attention)
        model.output.bias[BOUNDARY] = -20.0
        if len(set(model.translate([0, 1, 1, 0, 1, 0, 0, 1], max_tokens=6).reads)) > 2:
            return model
    raise AssertionError("random streams read everything, or nothing")


@every_stream
@torch.no_grad()
def test_a_stream_reads_no_further_than_it_says(attention: dict[str, Any], randomised: Randomised) -> None:
    model, early = build_impatient(randomised, attention), 0
    for tokens in [[0, 1, 1, 0, 1, 0, 0, 1], *sources(20, 8)]:
        assert reads_as_it_says(lambda source: model.stream(source, max_tokens=6), tokens)
        reads, written = (translated := model.translate(tokens, max_tokens=6)).reads, translated.tokens
        assert sorted(reads) == list(reads)
        for i, read in enumerate(reads):
            if read < len(tokens):
                early += 1
                changed = tokens[:read] + [1 - token for token in tokens[read:]] + [0, 1]
                other = model.translate(changed, max_tokens=6)
                assert other.tokens[: i + 1] == written[: i + 1], "what was not read decides nothing"
                assert other.reads[: i + 1] == reads[: i + 1]
    assert early


@torch.no_grad()
def test_soft_attention_reads_everything_first(randomised: Randomised) -> None:
    model = build(randomised, ATTENTIONS[0])
    for tokens in sources(5):
        assert reads_as_it_says(lambda source: model.stream(source, max_tokens=6), tokens)
        assert {step.reads for step in model.translate(tokens, max_tokens=6).steps} == {len(tokens)}


@every_stream
@torch.no_grad()
def test_one_token_ahead_is_seen(attention: dict[str, Any], randomised: Randomised) -> None:
    """Mutant: a stream that keeps one token in a buffer, as a careless reader would."""
    model = build_impatient(randomised, attention)

    def ahead(source: Iterable[int]) -> Iterator[int]:
        before = list(itertools.islice(source, 1))
        for token in source:
            yield before[0]
            before = [token]
        yield from before

    assert not reads_as_it_says(lambda source: model.stream(ahead(source), max_tokens=6), [0, 1, 1, 0, 1, 0, 0, 1])


@every_attention
@pytest.mark.parametrize("layers", [{"cell": "gru"}, {"cell": "lstm", "encoder_layers": 2, "writer_layers": 2}])
@torch.no_grad()
def test_a_stream_has_the_log_prob_weights_and_reads_of_the_whole_batch(
    attention: dict[str, Any], layers: dict[str, Any], randomised: Randomised
) -> None:
    model = build(randomised, attention, **layers)
    for tokens in sources(10, 7):
        found = model.translate(tokens, max_tokens=5)
        batch = pairs_of([tokens], [found.tokens])
        if found.steps[-1].token != BOUNDARY:
            batch.labels[:, -1] = IGNORED
        nats = -math.fsum(step.log_prob for step in found.steps)
        logits_RTV, reading = model.read(batch, hard=True)
        scored = int((batch.labels != IGNORED).sum())
        assert float(token_nats(logits_RTV, batch.labels).sum()) == pytest.approx(nats, abs=1e-9)
        weights_TS = reading.weights[0, :scored]
        alignment = found.alignment()[:scored]
        assert torch.allclose(weights_TS[:, : alignment.shape[1]], alignment, atol=1e-9)
        assert not weights_TS[:, alignment.shape[1] :].any()
        if reading.stops is not None:
            stopped_T = reading.stops[0, :scored].argmax(-1) + 1
            assert stopped_T.clamp(max=len(tokens)).tolist() == [step.reads for step in found.steps]


@every_attention
@torch.no_grad()
def test_a_target_position_depends_on_those_before_it_alone(attention: dict[str, Any], randomised: Randomised) -> None:
    model = build(randomised, attention)
    one, other = pairs_of([[0, 1, 0]], [[0, 1, 1, 0]]), pairs_of([[0, 1, 0]], [[0, 1, 0, 1]])
    for hard in (False, True):
        apart_T = (model.read(one, hard=hard)[0] - model.read(other, hard=hard)[0]).abs().amax((0, 2))
        assert float(apart_T[:3].max()) < 1e-12
        assert float(apart_T[3:].min()) > 1e-9


@every_stream
def test_noise_is_of_training_alone_and_of_its_size(attention: dict[str, Any], randomised: Randomised) -> None:
    batch = pairs_of(sources(4), sources(4))

    def differs(model: Seq2Seq) -> bool:
        return bool(
            model(batch, None, player="model", step=0).total != model(batch, None, player="model", step=0).total
        )

    assert differs(build(randomised, attention).train())
    assert not differs(build(randomised, attention).eval())
    assert not differs(build(randomised, attention | {"noise_std": 0.0}).train())


@every_attention
@torch.no_grad()
def test_the_objective_is_nats_and_so_many_times_the_lag(attention: dict[str, Any], randomised: Randomised) -> None:
    model = build(randomised, attention, latency_weight=0.7)
    batch = pairs_of([[0, 1, 1, 0], [1, 0]], [[1, 1, 0], [0, 1]])
    loss = model(batch, None, player="model", step=0)
    assert float(loss.metrics["nats"]) == pytest.approx(-float(model.expected_log_prob(batch).sum()), abs=1e-9)
    assert float(loss.total) == pytest.approx(float(loss.metrics["nats"] + 0.7 * loss.metrics["lag"]), abs=1e-9)
    if attention["kind"] == "soft":
        assert float(loss.metrics["lag"]) == pytest.approx(4 * 4 + 3 * 2, abs=1e-9), "it waits for all of the source"
        return
    model.attention.stop.offset_1.fill_(source_attention.CERTAIN)
    diagonal = model(batch, None, player="model", step=0).metrics["lag"]
    assert float(diagonal) == pytest.approx(4 * 1 + 3 * 1, abs=1e-9), "it reads one token, and owes the others' steps"
    model.attention.stop.offset_1.fill_(-source_attention.CERTAIN)
    waiting = model(batch, None, player="model", step=0).metrics["lag"]
    assert float(waiting) == pytest.approx(4 * 4 + 3 * 2, abs=1e-9)


@torch.no_grad()
def test_the_weight_of_the_lag_rises_linearly(randomised: Randomised) -> None:
    model = build(randomised, STOPPING[2], latency_weight=0.4, latency_warmup_steps=8)
    batch = pairs_of(sources(3), sources(3))
    for step, weight in ((0, 0.0), (2, 0.1), (8, 0.4), (100, 0.4)):
        loss = model(batch, None, player="model", step=step)
        assert float(loss.total - loss.metrics["nats"]) == pytest.approx(weight * float(loss.metrics["lag"]), abs=1e-9)


def test_the_end_of_a_target_does_not_lag(randomised: Randomised) -> None:
    """By hand: g = (1, 3) of four tokens, two for each written: 1 and 1, times the three that the row counts. With the
    end, read to 4, it would be 1, 3 - 4/3 and the same again."""
    model, batch = build(randomised, STOPPING[0]), pairs_of([[0, 1, 1, 0]], [[1, 0]])
    stops_1TS = torch.nn.functional.one_hot(torch.tensor([[0, 2, 4]]), 5).double()
    assert model._lag(batch, Reading(stops_1TS, stops_1TS)).tolist() == pytest.approx([3.0], abs=1e-12)


@every_attention
def test_sources_targets_and_outputs_are_dropped_out(attention: dict[str, Any], randomised: Randomised) -> None:
    """Each alone: with all but one kind of dropout undone, two passes differ."""
    batch = pairs_of([[0, 1, 1, 0]], [[1, 0, 0]])
    model = build(randomised, attention | ({} if attention["kind"] == "soft" else {"noise_std": 0.0}), dropout=0.5)

    class Once(nn.Dropout):
        """Drops out what the `turn`-th call of a pass is given."""

        def __init__(self, turn: int) -> None:
            super().__init__(0.5)
            self.turn, self.calls = turn, 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return super().forward(x) if (self.calls - 1) % 3 == self.turn else x

    given: list[tuple[int, ...]] = []
    model.dropout.register_forward_pre_hook(lambda _, x: given.append(tuple(x[0].shape)))
    model.train()(batch, None, player="model", step=0)
    assert given == [(1, 5, 3), (1, 4, 3), (1, 4, 5)], "embeddings of source and target, then what the output reads"
    for turn in range(3):
        model.dropout = Once(turn)
        model.train()
        totals = {float(model(batch, None, player="model", step=0).total.detach()) for _ in range(8)}
        assert len(totals) > 1
    model.eval()
    assert len({float(model(batch, None, player="model", step=0).total.detach()) for _ in range(3)}) == 1


@every_attention
def test_a_stream_drops_nothing_out_in_training_mode(attention: dict[str, Any], randomised: Randomised) -> None:
    model = build(randomised, attention, dropout=0.5)
    model.output.bias.data[BOUNDARY] = -20.0
    quiet = model.eval().translate([0, 1, 1, 0], max_tokens=5)
    assert model.train().translate([0, 1, 1, 0], max_tokens=5) == quiet


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ([0, 3], [1], "source token 3 at 1 of row 1: must be from 0 to 2, the model's vocabulary"),
        ([0, 7], [1], "source token 7 at 1 of row 1"),
        ([0, -1], [1], "source token -1 at 1 of row 1"),
        ([0, 1], [1, 3], "target token 3 at 2 of row 1: .*; encode the target with the tokenizer of the model's data"),
    ],
)
def test_tokens_that_are_none(source: list[int], target: list[int], message: str, randomised: Randomised) -> None:
    """The one past the vocabulary would else be the end of the source."""
    model = build(randomised, STOPPING[0])
    batch = pairs_of([[0, 1, 1], source], [[1], target])
    with pytest.raises(BadInput, match=message):
        model(batch, None, player="model", step=0)
    with pytest.raises(BadInput, match=message):
        model.log_prob(batch)
    padding = pairs_of([[0, 1, 1], [0]], [[1], [1]])
    padding.sources[1, 1:] = 99
    assert model.log_prob(padding).isfinite().all(), "what stands behind a source means nothing"


def test_a_label_that_is_none(randomised: Randomised) -> None:
    batch = pairs_of([[0, 1]], [[1, 0]])
    batch.labels[0, 1] = 5
    with pytest.raises(BadInput, match="target token 5 at 1 of row 0"):
        build(randomised, STOPPING[0]).log_prob(batch)


def test_the_boundary_is_a_token(randomised: Randomised) -> None:
    with pytest.raises(ValidationError, match=r"model\.boundary=3: must be below model\.vocab_size=3"):
        build(randomised, ATTENTIONS[0], boundary=3)


def test_bad_input(randomised: Randomised) -> None:
    model = build(randomised, ATTENTIONS[0])
    with pytest.raises(BadInput, match=r"source token 3 at 1: must be from 0 to 2"):
        model.translate([0, 3], max_tokens=4)
    assert len(model.translate([], max_tokens=4).tokens) <= 4, "of an empty source there is its end"
