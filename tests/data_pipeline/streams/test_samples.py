"""Samples: every piece of the epoch's concatenation once, in a permuted order."""

import numpy as np
import torch

from data_pipeline.batch import TokenBatch
from data_pipeline.streams import Draws, SampleStream
from tests.data_pipeline.ragged import RaggedDocuments

LENGTHS = [5, 1, 17, 3, 40, 2, 2, 9, 64, 1, 1, 30, 8, 12, 5]
DOCUMENTS = RaggedDocuments(LENGTHS)
LENGTH = 4


def epoch_of(stream: SampleStream, epoch: int, micro_batches: int) -> list[TokenBatch]:
    first = epoch * stream.draws_per_epoch
    draws = range(first, first + stream.draws_per_epoch)
    return [stream.micro_batch(draw, number) for draw in draws for number in range(micro_batches)]


def test_an_epoch_has_every_sample_once_in_another_order_than_the_next() -> None:
    stream = SampleStream(RaggedDocuments([37]), length=LENGTH, draws=Draws(micro_batches=3, rows=1))
    orders = [torch.cat([batch.inputs[:, 0] for batch in epoch_of(stream, epoch, 3)]) for epoch in range(4)]
    for order in orders:
        assert torch.equal(order.sort().values, torch.arange(0, 36, LENGTH))
        assert not torch.equal(order, order.sort().values)
    assert len({tuple(order.tolist()) for order in orders}) == 4


def test_unshuffled_samples_come_in_the_corpus_order() -> None:
    stream = SampleStream(DOCUMENTS, length=LENGTH, draws=Draws(micro_batches=3, rows=2), shuffle=False)
    for epoch in (0, 1):
        tokens = torch.cat([batch.inputs.flatten() for batch in epoch_of(stream, epoch, 3)])
        assert torch.equal(tokens, torch.arange(len(tokens)))


def test_ages_count_from_the_sample_or_a_later_document() -> None:
    draws = Draws(micro_batches=3, rows=2, seed=2)
    stream = SampleStream(DOCUMENTS, length=LENGTH, draws=draws)
    joined = SampleStream(DOCUMENTS, length=LENGTH, draws=draws, separate_documents=False)
    within = np.arange(LENGTH)
    saw_boundary = False
    for batch, plain in zip(epoch_of(stream, 1, 3), epoch_of(joined, 1, 3), strict=True):
        expected = np.minimum(DOCUMENTS.offset_of(batch.inputs.numpy()), within)
        saw_boundary |= bool((expected != within).any())
        assert np.array_equal(batch.age.numpy(), expected)
        assert np.array_equal(plain.age.numpy(), np.broadcast_to(within, plain.age.shape))
    assert saw_boundary
