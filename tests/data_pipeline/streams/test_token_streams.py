"""What lanes and samples have in common: pure, covering, labelled with the next token, aged from the right start."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from data_pipeline.batch import TokenBatch
from data_pipeline.config import BadInput
from data_pipeline.streams import Draws, LaneStream, SampleStream, Stream
from tests.data_pipeline.ragged import RaggedDocuments

LENGTHS = [5, 1, 17, 3, 40, 2, 2, 9, 64, 1, 1, 30, 8, 12, 5]
DOCUMENTS = RaggedDocuments(LENGTHS)
LENGTH, DRAWS = 4, Draws(micro_batches=3, rows=2, seed=11)

Make = Callable[..., Stream]


def make(
    kind: type[LaneStream] | type[SampleStream],
    *,
    documents: RaggedDocuments = DOCUMENTS,
    length: int = LENGTH,
    draws: Draws = DRAWS,
    shuffle: bool = True,
    separate: bool = True,
) -> LaneStream | SampleStream:
    return kind(documents, length=length, draws=draws, shuffle=shuffle, separate_documents=separate)


def epoch_of(stream: LaneStream | SampleStream, epoch: int, micro_batches: int = 3) -> list[list[TokenBatch]]:
    """[draw][micro-batch]"""
    first = epoch * stream.draws_per_epoch
    return [
        [stream.micro_batch(first + draw, number) for number in range(micro_batches)]
        for draw in range(stream.draws_per_epoch)
    ]


def same(one: TokenBatch, other: TokenBatch) -> bool:
    names = ("inputs", "labels", "age", "sample_ids")
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in names)


both = pytest.mark.parametrize("kind", [LaneStream, SampleStream])


@both
def test_is_a_stream_of_int64(kind: type[LaneStream]) -> None:
    stream = make(kind)
    assert isinstance(stream, Stream)
    batch = stream.micro_batch(0, 0)
    for tensor in (batch.inputs, batch.labels, batch.age):
        assert tensor.shape == (2, LENGTH)
        assert tensor.dtype == torch.int64
        assert tensor.is_contiguous()
    assert batch.sample_ids.shape == (2,)


@both
@pytest.mark.parametrize("shuffle", [True, False])
def test_any_order_and_any_worker_get_the_same(kind: type[LaneStream], shuffle: bool) -> None:
    alone = make(kind, shuffle=shuffle)
    places = [(draw, number) for draw in range(3 * alone.draws_per_epoch) for number in range(3)]
    expected = {place: alone.micro_batch(*place) for place in places}
    workers = [make(kind, shuffle=shuffle), make(kind, shuffle=shuffle)]
    order = np.random.default_rng(0).permutation(len(places))
    for index in order:
        draw, number = places[index]
        assert same(workers[number % 2].micro_batch(draw, number), expected[draw, number])


@both
def test_labels_are_the_next_tokens_of_the_document(kind: type[LaneStream]) -> None:
    stream = make(kind)
    for batch in (one for draw in epoch_of(stream, 1) for one in draw):
        inputs, labels = batch.inputs.numpy(), batch.labels.numpy()
        assert np.array_equal(inputs[:, 1:], labels[:, :-1])
        inside = DOCUMENTS.offset_of(inputs) < DOCUMENTS.lengths[DOCUMENTS.document_of(inputs)] - 1
        assert inside.any()
        assert np.array_equal(labels[inside], inputs[inside] + 1)
        assert (DOCUMENTS.offset_of(labels[~inside]) == 0).all()


@both
def test_no_token_comes_twice_in_an_epoch(kind: type[LaneStream]) -> None:
    stream = make(kind)
    for epoch in (0, 1, 5):
        tokens = torch.cat([batch.inputs.flatten() for draw in epoch_of(stream, epoch) for batch in draw])
        assert len(tokens.unique()) == len(tokens) == stream.draws_per_epoch * 3 * 2 * LENGTH


@both
def test_what_an_epoch_leaves_out_is_less_than_one_draw_and_the_tails(kind: type[LaneStream]) -> None:
    used = make(kind).draws_per_epoch * 6 * LENGTH
    assert sum(LENGTHS) - used <= 6 * LENGTH + 6


@both
def test_epochs_are_ordered_anew_only_if_shuffled(kind: type[LaneStream]) -> None:
    for shuffle in (True, False):
        stream = make(kind, shuffle=shuffle)
        first, second = stream.micro_batch(0, 0), stream.micro_batch(stream.draws_per_epoch, 0)
        assert torch.equal(first.inputs, second.inputs) != shuffle


@both
def test_sample_ids_tell_rows_of_all_epochs_apart(kind: type[LaneStream]) -> None:
    stream = make(kind)
    batches = [batch for epoch in range(3) for draw in epoch_of(stream, epoch) for batch in draw]
    ids = torch.cat([batch.sample_ids for batch in batches])
    assert len(ids.unique()) == len(ids)


@both
def test_equal_sample_ids_mean_equal_rows(kind: type[LaneStream]) -> None:
    wide, narrow = make(kind), make(kind, draws=Draws(micro_batches=6, rows=1, seed=11))
    for draw in range(wide.draws_per_epoch):
        rows = [narrow.micro_batch(draw, number) for number in range(6)]
        ids = torch.cat([wide.micro_batch(draw, number).sample_ids for number in range(3)])
        inputs = torch.cat([wide.micro_batch(draw, number).inputs for number in range(3)])
        assert torch.equal(torch.cat([row.sample_ids for row in rows]), ids)
        assert torch.equal(torch.cat([row.inputs for row in rows]), inputs)


@both
def test_the_fingerprint_has_all_that_batches_depend_on(kind: type[LaneStream]) -> None:
    variants = [
        make(kind),
        make(kind, length=5),
        make(kind, shuffle=False),
        make(kind, separate=False),
        make(kind, documents=RaggedDocuments([*LENGTHS, 1])),
        make(kind, draws=Draws(micro_batches=3, rows=2, seed=12)),
        make(kind, draws=Draws(micro_batches=2, rows=3, seed=11)),
        make(LaneStream if kind is SampleStream else SampleStream),
    ]
    fingerprints = [tuple(sorted(one.fingerprint().items())) for one in variants]
    assert len(set(fingerprints)) == len(variants)
    assert make(kind).fingerprint() == make(kind).fingerprint()


@both
def test_one_token_too_few_is_refused_with_the_numbers(kind: type[LaneStream]) -> None:
    needed = DRAWS.total * LENGTH + 1
    assert make(kind, documents=RaggedDocuments([needed])).draws_per_epoch == 1
    with pytest.raises(BadInput, match=rf"{needed - 1} tokens.*micro_batches 3 x rows 2 x length 4.*at least {needed}"):
        make(kind, documents=RaggedDocuments([needed - 1]))


@both
@pytest.mark.parametrize(("draw", "number"), [(-1, 0), (0, 3), (0, -1)])
def test_places_outside_the_run_are_refused(kind: type[LaneStream], draw: int, number: int) -> None:
    with pytest.raises(ValueError, match=f"draw {draw}, micro_batch {number}"):
        make(kind).micro_batch(draw, number)
