"""Independent samples: each epoch's concatenated documents cut in pieces of L tokens, read in a permuted order.

The N tokens give (N - 1) // L samples; a draw has the next G * R of the permuted order. What is left out each epoch:
the samples too few for one more draw (others each time, if the order is shuffled) and the tokens after the last sample.
"""

from data_pipeline.batch import TokenBatch
from data_pipeline.streams.concatenation import Documents, Epochs
from data_pipeline.streams.permutation import Permutation
from data_pipeline.streams.stream import Draws, no_whole_draw


class SampleStream:
    """Batches whose rows have nothing to do with each other nor with the draw before."""

    def __init__(
        self, documents: Documents, *, length: int, draws: Draws, shuffle: bool = True, separate_documents: bool = True
    ) -> None:
        """`length` L is the tokens of a sample. BadInput if the documents have fewer than G * R * L + 1 tokens.

        An age counts from the sample's start; with `separate_documents` from the document's start where that is later.
        Without `shuffle` documents and samples keep their order.
        """
        self._epochs = Epochs(documents, seed=draws.seed, shuffle=shuffle, separate_documents=separate_documents)
        self._draws, self._length = draws, length
        self._num_samples = max(self._epochs.num_tokens - 1, 0) // length
        if self._num_samples < draws.total:
            raise no_whole_draw("tokens", self._epochs.num_tokens, draws.total * length + 1, draws, length)

    @property
    def draws_per_epoch(self) -> int:
        return self._num_samples // self._draws.total

    def micro_batch(self, draw: int, micro_batch: int) -> TokenBatch:
        epoch, number = divmod(draw, self.draws_per_epoch)
        sample_R = self._draws.rows_of(draw, micro_batch) + number * self._draws.total
        if self._epochs.shuffle:
            sample_R = Permutation(self._num_samples, self._draws.seed, epoch, "samples")(sample_R)
        start_R = sample_R * self._length
        return self._epochs.batch(epoch, start_R, self._length, age_from_R=start_R)

    def fingerprint(self) -> dict[str, str | int]:
        return {"reads": "samples", "length": self._length, **self._draws.model_dump(), **self._epochs.fingerprint()}
