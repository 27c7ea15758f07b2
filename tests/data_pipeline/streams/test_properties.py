"""Over any documents, batch, seed and epoch: every token once, contiguous lanes, and the batches of the definition."""

from collections.abc import Iterator

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.batch import TokenBatch
from data_pipeline.streams import Draws, LaneStream, SampleStream
from data_pipeline.streams.permutation import Permutation
from tests.data_pipeline.ragged import RaggedDocuments

lengths = st.lists(st.integers(1, 40), min_size=1, max_size=30)
batches = st.tuples(st.integers(1, 3), st.integers(1, 3))
small = settings(max_examples=60, deadline=None)


def draws_of(batch: tuple[int, int], seed: int) -> Draws:
    return Draws(micro_batches=batch[0], rows=batch[1], seed=seed)


def fits(documents: RaggedDocuments, length: int, draws: Draws) -> bool:
    return int(documents.lengths.sum()) > draws.total * length


def epoch_of(stream: LaneStream | SampleStream, epoch: int, micro_batches: int) -> Iterator[list[TokenBatch]]:
    for draw in range(epoch * stream.draws_per_epoch, (epoch + 1) * stream.draws_per_epoch):
        yield [stream.micro_batch(draw, number) for number in range(micro_batches)]


class Definition:
    """What rows hold: one token of one document after the other."""

    def __init__(self, documents: RaggedDocuments, order: np.ndarray, *, separate: bool) -> None:
        sizes = documents.lengths.tolist()
        places = [(int(d), offset) for d in order for offset in range(sizes[int(d)])]
        first = np.cumsum(documents.lengths) - documents.lengths
        self.tokens = [int(first[d]) + offset for d, offset in places]
        self.firsts = [place - offset if separate else 0 for place, (_, offset) in enumerate(places)]

    def check(self, batch: TokenBatch, row: int, start: int, age_from: int) -> list[int]:
        """The tokens of a row."""
        stop = start + batch.inputs.shape[1]
        assert batch.inputs[row].tolist() == self.tokens[start:stop]
        assert batch.labels[row].tolist() == self.tokens[start + 1 : stop + 1]
        ages = [place - max(self.firsts[place], age_from) for place in range(start, stop)]
        assert batch.age[row].tolist() == ages
        return self.tokens[start:stop]


@small
@given(size=st.integers(1, 3000), seed=st.integers(0, 2**40), epoch=st.integers(0, 10**6))
def test_a_permutation_visits_every_place_once(size: int, seed: int, epoch: int) -> None:
    order = Permutation(size, seed, epoch, "documents")(np.arange(size))
    assert np.array_equal(np.sort(order), np.arange(size))


@small
@given(lengths, st.integers(1, 9), batches, st.integers(0, 2**40), st.integers(0, 50), st.booleans(), st.booleans())
def test_lanes_are_contiguous_and_visit_no_token_twice(
    sizes: list[int], length: int, batch: tuple[int, int], seed: int, epoch: int, shuffle: bool, separate: bool
) -> None:
    documents, draws = RaggedDocuments(sizes), draws_of(batch, seed)
    if not fits(documents, length, draws):
        return
    stream = LaneStream(documents, length=length, draws=draws, shuffle=shuffle, separate_documents=separate)
    order = np.arange(len(sizes))
    order = Permutation(len(sizes), seed, epoch, "documents")(order) if shuffle else order
    lane_length = (sum(sizes) - 1) // draws.total
    definition, seen = Definition(documents, order, separate=separate), []
    for number, micro_batches in enumerate(epoch_of(stream, epoch, draws.micro_batches)):
        for lane, row in enumerate((b, r) for b in micro_batches for r in range(draws.rows)):
            one, r = row
            start = lane * lane_length + number * length
            seen += definition.check(one, r, start, lane * lane_length)
            assert int(one.sample_ids[r]) == epoch * sum(sizes) + start
    assert len(set(seen)) == len(seen) == lane_length // length * length * draws.total


@small
@given(lengths, st.integers(1, 9), batches, st.integers(0, 2**40), st.integers(0, 50), st.booleans(), st.booleans())
def test_samples_visit_every_token_once(
    sizes: list[int], length: int, batch: tuple[int, int], seed: int, epoch: int, shuffle: bool, separate: bool
) -> None:
    documents, draws = RaggedDocuments(sizes), draws_of(batch, seed)
    if not fits(documents, length, draws):
        return
    stream = SampleStream(documents, length=length, draws=draws, shuffle=shuffle, separate_documents=separate)
    num_rows = (sum(sizes) - 1) // length
    order, places = np.arange(len(sizes)), np.arange(num_rows)
    if shuffle:
        order = Permutation(len(sizes), seed, epoch, "documents")(order)
        places = Permutation(num_rows, seed, epoch, "samples")(places)
    definition, seen, rows = Definition(documents, order, separate=separate), [], iter(places)
    for micro_batches in epoch_of(stream, epoch, draws.micro_batches):
        for one in micro_batches:
            for r in range(draws.rows):
                start = int(next(rows)) * length
                seen += definition.check(one, r, start, start)
                assert int(one.sample_ids[r]) == epoch * sum(sizes) + start
    assert len(set(seen)) == len(seen) == num_rows // draws.total * draws.total * length
    assert sum(sizes) - len(seen) <= draws.total * length, "no more is left out than one draw, and the tail of a row"


def test_a_far_step_is_the_same_whoever_was_there_before() -> None:
    documents, draws = RaggedDocuments([5, 17, 3, 40, 2]), Draws(micro_batches=2, rows=2, seed=3)
    fresh, used = (SampleStream(documents, length=4, draws=draws) for _ in range(2))
    for draw in range(50):
        used.micro_batch(draw, draw % 2)
    for draw in (10**6, 10**12 + 7):
        assert torch.equal(fresh.micro_batch(draw, 1).inputs, used.micro_batch(draw, 1).inputs)
