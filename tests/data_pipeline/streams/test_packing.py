"""Packing: whole documents where they fit, every token an input once, masks that keep documents apart."""

import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.batch import IGNORED, TokenBatch
from data_pipeline.config import BadInput
from data_pipeline.markov import MarkovConfig
from data_pipeline.streams import Draws, SampleStream
from data_pipeline.streams.packing import PackedRows, best_fit
from data_pipeline.streams.reading import token_stream
from pretrain.models import GPTConfig
from tests.data_pipeline.ragged import RaggedDocuments

LENGTHS = [5, 1, 17, 3, 40, 2, 2, 9, 64, 1, 1, 30, 8, 12, 5]
LENGTH = 16


def simple_best_fit(lengths: list[int], capacity: int) -> list[int]:
    """The room that is left in each row: piece by piece, the longest first."""
    rooms: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [place for place, room in enumerate(rooms) if room >= length]
        if not fitting:
            rooms.append(capacity)
            fitting = [len(rooms) - 1]
        rooms[min(fitting, key=lambda place: rooms[place])] -= length
    return rooms


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 40).flatmap(lambda c: st.tuples(st.just(c), st.lists(st.integers(1, c), min_size=1, max_size=120)))
)
def test_it_is_best_fit_decreasing(case: tuple[int, list[int]]) -> None:
    capacity, lengths = case
    rows, num_rows = best_fit(np.array(lengths, dtype=np.int64), capacity)
    rooms = capacity - np.bincount(rows, weights=lengths, minlength=num_rows)
    assert sorted(rooms.tolist()) == sorted(simple_best_fit(lengths, capacity))


class FromOne(RaggedDocuments):
    """Token i is the number i + 1, so that what fills a row is none of them."""

    def read(self, documents_K: np.ndarray, offsets_K: np.ndarray, lengths_K: np.ndarray) -> np.ndarray:
        return super().read(documents_K, offsets_K, lengths_K) + 1


def all_rows(documents: RaggedDocuments, length: int, *, separate: bool = True) -> TokenBatch:
    rows = PackedRows(documents, length=length, seed=0, separate_documents=separate)
    return rows.batch(0, np.arange(rows.num_rows))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.integers(2, 24))
def test_every_token_is_an_input_once_in_whole_documents(sizes: list[int], length: int) -> None:
    documents = FromOne(sizes)
    if sum(sizes) == 1:
        return
    batch = all_rows(documents, length)
    ages, inputs, labels = batch.age.numpy(), batch.inputs.numpy() - 1, batch.labels.numpy() - 1
    columns = np.arange(length)
    seen: Counter[int] = Counter()
    for row in range(len(inputs)):
        starts = columns[ages[row] == 0]
        for begin, end in itertools.pairwise([*starts, length]):
            assert ages[row, begin:end].tolist() == list(range(end - begin))
            tokens = inputs[row, begin:end]
            if tokens[0] < 0:
                assert (inputs[row, begin:] < 0).all(), "padding is at the end"
                assert end - begin == 1, "and sees itself alone"
                assert labels[row, begin] == IGNORED - 1
                continue
            seen.update(tokens.tolist())
            document, offset = documents.document_of(tokens[:1])[0], documents.offset_of(tokens[:1])[0]
            assert (documents.document_of(tokens) == document).all()
            assert np.array_equal(np.diff(tokens), np.ones(len(tokens) - 1))
            assert np.array_equal(labels[row, begin : end - 1], tokens[1:])
            whole = offset == 0 and len(tokens) == sizes[document]
            assert whole or sizes[document] > length, "a document is cut only if it is longer than a row"
            assert whole or offset % length == 0
    assert set(seen.values()) <= {1}
    assert (batch.labels != IGNORED).any(1).all(), "a step of no label would divide by nothing"
    for token in np.array(sorted({*range(sum(sizes))} - seen.keys()), dtype=np.int64):
        size, offset = sizes[documents.document_of(token)], int(documents.offset_of(token))
        assert offset == size - 1, "what is left out is a document of one token or a rest of one"
        assert offset % length == 0


def test_rows_without_a_label_are_left_out() -> None:
    rests = PackedRows(RaggedDocuments([1, 17, 33, 17]), length=16, seed=0)
    assert rests.num_rows == 4, "the fifth row would have a document of one token before three rests of one"
    assert sorted(rests.batch(0, np.arange(4)).inputs[:, 0].tolist()) == [1, 18, 34, 51]
    begins = PackedRows(RaggedDocuments([17, 33, 1, 1]), length=16, seed=0)
    last = begins.batch(0, np.array([begins.num_rows - 1]))
    assert (last.labels != IGNORED).sum() == 2, "of the tokens before documents that begin"
    assert PackedRows(RaggedDocuments([1]), length=16, seed=0).num_rows == 0
    assert PackedRows(RaggedDocuments([1, 1]), length=16, seed=0).num_rows == 1


def test_labels_cross_to_the_next_document_but_not_into_a_rest() -> None:
    batch = all_rows(RaggedDocuments([20, 5, 7]), LENGTH)  # 16, and a row of 7 + 5 + the rest of 4
    assert sorted(batch.inputs[:, 0].tolist()) == [0, 16]
    first, second = (batch.inputs[:, 0].tolist().index(token) for token in (0, 16))
    assert batch.labels[first].tolist() == list(range(1, 17)), "the last label is in the other row"
    assert batch.inputs[second].tolist() == [*range(16, 20), *range(20, 25), *range(25, 32)]
    assert batch.labels[second].tolist() == [*range(17, 20), 20, *range(21, 25), 25, *range(26, 32), IGNORED]
    other = all_rows(RaggedDocuments([5, 20, 7]), LENGTH)
    row = other.inputs[:, 0].tolist().index(0)
    assert other.inputs[row].tolist() == [*range(5), *range(21, 25), *range(25, 32)]
    assert other.labels[row, :5].tolist() == [1, 2, 3, 4, IGNORED], "no document is asked for the middle of another"


def test_joined_documents_age_from_the_row() -> None:
    batch = all_rows(RaggedDocuments(LENGTHS), LENGTH, separate=False)
    filled = torch.arange(LENGTH).expand_as(batch.age)
    assert ((batch.age == filled) | ((batch.age == 0) & (batch.labels == IGNORED))).all()
    assert (batch.age[:, 1:] > 0).any()


def test_a_stream_of_packed_rows_has_each_once_an_epoch() -> None:
    stream = SampleStream(
        RaggedDocuments(LENGTHS), length=LENGTH, draws=Draws(micro_batches=2, rows=1), packing="best_fit"
    )
    per_epoch = [
        [
            int(stream.micro_batch(epoch * stream.draws_per_epoch + d, g).sample_ids)
            for d in range(stream.draws_per_epoch)
            for g in (0, 1)
        ]
        for epoch in range(3)
    ]
    num_rows = PackedRows(RaggedDocuments(LENGTHS), length=LENGTH, seed=0).num_rows
    for epoch, ids in enumerate(per_epoch):
        assert len(set(ids)) == len(ids) == num_rows // 2 * 2
        assert {i // num_rows for i in ids} == {epoch}
    assert per_epoch[0] != [i - num_rows for i in per_epoch[1]]
    assert stream.fingerprint()["packing"] == "best_fit"


def test_cut_rows_have_the_fingerprint_they_always_had() -> None:
    stream = SampleStream(RaggedDocuments(LENGTHS), length=4, draws=Draws(micro_batches=2, rows=1))
    assert stream.fingerprint().keys() == {
        "reads", "length", "micro_batches", "rows", "seed", "data", "shuffle", "separate_documents",
    }  # fmt: skip


def test_lanes_are_not_packed() -> None:
    with pytest.raises(BadInput, match=r"data\.packing best_fit: a lane is one stretch of text.*packing=cut"):
        token_stream(
            RaggedDocuments(LENGTHS), kind="text", reads="lanes", length=4, draws=Draws(micro_batches=1, rows=1),
            shuffle=True, separate_documents=True, packing="best_fit",
        )  # fmt: skip


def test_a_gpt_sees_no_other_document_and_no_padding() -> None:
    """Each document of a packed row costs what it costs where all other tokens of the row are others."""
    torch.manual_seed(0)
    model = (
        GPTConfig(
            kind="gpt", vocab_size=128, num_layers=2, width=16, num_heads=2, inner_width=32, context_length=LENGTH
        )
        .build()
        .double()
    )
    batch = all_rows(RaggedDocuments([5, 6, 3, 20, 9, 2]), LENGTH)
    assert (batch.labels == IGNORED).any()
    nats = model.token_nats(batch, None)[0]
    assert (nats[batch.labels == IGNORED] == 0).all()
    assert model.count(batch) == int((batch.labels != IGNORED).sum())
    for row in range(batch.rows):
        starts = (batch.age[row] == 0).nonzero().flatten().tolist()
        for begin, end in itertools.pairwise([*starts, LENGTH]):
            inputs = (batch.inputs[row] + 1) % 128
            inputs[begin:end] = batch.inputs[row, begin:end]
            changed = TokenBatch(inputs[None], batch.labels[row][None], batch.age[row][None], batch.sample_ids[:1])
            assert torch.equal(model.token_nats(changed, None)[0][0, begin:end], nats[row, begin:end])
    joined = TokenBatch(batch.inputs, batch.labels, torch.arange(LENGTH).expand_as(batch.age), batch.sample_ids)
    assert not torch.equal(model.token_nats(joined, None)[0], nats), "the mask does nothing"


def test_many_documents_are_packed_tightly() -> None:
    documents = MarkovConfig(kind="markov", document_length=7, num_documents=100).documents("train")
    rows = PackedRows(documents, length=30, seed=0)
    assert rows.num_rows == 25
    assert rows.filled == pytest.approx(700 / 750)
