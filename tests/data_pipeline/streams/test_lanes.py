"""Lanes: each row of the global batch goes on where it stopped, through one stretch of the epoch's documents."""

import numpy as np
import pytest
import torch

from data_pipeline.streams import Draws, LaneStream
from tests.data_pipeline.ragged import RaggedDocuments

LENGTHS = [5, 1, 17, 3, 40, 2, 2, 9, 64, 1, 1, 30, 8, 12, 5]
DOCUMENTS = RaggedDocuments(LENGTHS)
TOTAL = sum(LENGTHS)
LENGTH, ROWS = 4, 6
DRAWS = Draws(micro_batches=3, rows=2, seed=11)


def lanes_of(stream: LaneStream, epoch: int, field: str) -> np.ndarray:
    """[G * R, draws * L]: a field of all segments of every lane, end to end."""
    first = epoch * stream.draws_per_epoch
    draws = range(first, first + stream.draws_per_epoch)
    rows = [[getattr(stream.micro_batch(draw, number), field) for number in range(3)] for draw in draws]
    return torch.cat([torch.cat(row) for row in rows], dim=1).numpy()


def test_unshuffled_lanes_are_stretches_of_the_corpus() -> None:
    stream = LaneStream(DOCUMENTS, length=LENGTH, draws=DRAWS, shuffle=False)
    lane_length = (TOTAL - 1) // ROWS
    used = lane_length // LENGTH * LENGTH
    starts = lane_length * np.arange(ROWS)[:, None]
    assert lane_length - used < LENGTH
    assert np.array_equal(lanes_of(stream, 0, "inputs"), starts + np.arange(used))
    assert np.array_equal(lanes_of(stream, 0, "labels"), starts + np.arange(used) + 1)


@pytest.mark.parametrize("epoch", [0, 1, 2])
def test_shuffled_lanes_hold_whole_documents_in_one_order(epoch: int) -> None:
    stream = LaneStream(DOCUMENTS, length=1, draws=DRAWS)
    tokens = lanes_of(stream, epoch, "inputs").ravel()
    documents, offsets = DOCUMENTS.document_of(tokens), DOCUMENTS.offset_of(tokens)
    goes_on = documents[1:] == documents[:-1]
    assert np.array_equal(offsets[1:][goes_on], offsets[:-1][goes_on] + 1)
    assert (offsets[1:][~goes_on] == 0).all()
    ended = offsets[:-1][~goes_on] == DOCUMENTS.lengths[documents[:-1][~goes_on]] - 1
    assert ended.all()
    order = documents[np.flatnonzero(np.r_[True, ~goes_on])]
    assert len(np.unique(order)) == len(order) >= len(LENGTHS) - ROWS - 1
    assert not np.array_equal(order, np.sort(order))


def test_a_label_at_the_end_of_a_segment_is_the_first_input_of_the_next() -> None:
    stream = LaneStream(DOCUMENTS, length=LENGTH, draws=DRAWS)
    for draw in range(stream.draws_per_epoch - 1):
        for number in range(3):
            now, then = stream.micro_batch(draw, number), stream.micro_batch(draw + 1, number)
            assert torch.equal(now.labels[:, -1], then.inputs[:, 0])


@pytest.mark.parametrize("epoch", [0, 3])
def test_separate_documents_age_from_the_later_of_document_and_lane(epoch: int) -> None:
    stream = LaneStream(DOCUMENTS, length=LENGTH, draws=DRAWS)
    tokens, ages = lanes_of(stream, epoch, "inputs"), lanes_of(stream, epoch, "age")
    expected = np.minimum(DOCUMENTS.offset_of(tokens), np.arange(tokens.shape[1]))
    assert (expected < DOCUMENTS.offset_of(tokens)).any(), "no lane starts within a document: the test shows nothing"
    assert np.array_equal(ages, expected)


def test_joined_documents_age_from_the_lane_anew_each_epoch() -> None:
    stream = LaneStream(DOCUMENTS, length=LENGTH, draws=DRAWS, separate_documents=False)
    for epoch in (0, 1):
        ages = lanes_of(stream, epoch, "age")
        assert np.array_equal(ages, np.broadcast_to(np.arange(ages.shape[1]), ages.shape))


def test_sample_ids_are_epoch_times_total_plus_start() -> None:
    stream = LaneStream(DOCUMENTS, length=LENGTH, draws=DRAWS, shuffle=False)
    for epoch in (0, 2):
        batch = stream.micro_batch(epoch * stream.draws_per_epoch + 1, 2)
        assert torch.equal(batch.sample_ids, epoch * TOTAL + batch.inputs[:, 0])
