"""The 1797 handwritten digits of 8 x 8 pixels that come with scikit-learn (UCI "Optical recognition", test part)."""

from typing import Literal

import numpy as np

from data_pipeline.config import BadInput, Config
from data_pipeline.mixing import fraction_of
from data_pipeline.streams.reading import Reads, cannot_be_read, check_split
from data_pipeline.streams.stream import Draws, Stream
from data_pipeline.streams.vectors import Vectors, VectorStream

HELD_OUT = 0.1
"""The share of the split "valid": the images whose number's hash falls below it."""


class DigitsConfig(Config):
    """Vectors of 64 pixels in [0, 1], row by row, with the digit as the label."""

    kind: Literal["digits"]
    binarize: bool = False
    """Pixels above 0.5 become 1, the others 0."""

    def vocab_size(self) -> int | None:
        """None: not tokens."""

    def stream(
        self,
        *,
        reads: Reads,
        length: int | None,
        micro_batches: int,
        rows: int,
        seed: int,
        split: str = "train",
    ) -> Stream:
        """Shuffled images; BadInput for a model that reads tokens."""
        if reads != "vectors":
            raise cannot_be_read(self.kind, reads, "vectors")
        if length is not None:
            raise BadInput(f"length {length}: data.kind {self.kind} has no segments; leave length out")
        return VectorStream(self.vectors(split), draws=Draws(micro_batches=micro_batches, rows=rows, seed=seed))

    def vectors(self, split: str) -> Vectors:
        """The images of "train" (nine tenths) or "valid"."""
        check_split(self.kind, split, ("train", "valid"))
        everything = self._everything()
        held_out_N = np.array([fraction_of(f"digits/{n}") < HELD_OUT for n in range(len(everything.labels))])
        chosen_N = held_out_N if split == "valid" else ~held_out_N
        return Vectors(everything.values[chosen_N], everything.labels[chosen_N])

    def fingerprint(self) -> str:
        """SHA-256 over all images and labels."""
        return self._everything().fingerprint

    def _everything(self) -> Vectors:
        from sklearn.datasets import load_digits  # slow to import, needed by few

        values_ND, labels_N = load_digits(return_X_y=True)
        values_ND = (values_ND / 16.0).astype(np.float32)
        if self.binarize:
            values_ND = (values_ND > 0.5).astype(np.float32)
        return Vectors(values_ND, labels_N.astype(np.int64))
