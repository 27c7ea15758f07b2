"""Data of kind `music`: prepared rolls, cut into slices of equal length from their beginning; what is left at their
end is left out.

Legend: R slices of a batch, T steps of one, K keys.
"""

from typing import Literal

import numpy as np
from pydantic import Field

from data_pipeline.media.media_data import MediaData
from data_pipeline.media.media_rows import media_vectors, windows_of
from data_pipeline.media.media_shards import MediaShards
from data_pipeline.media.music import KEYS, Form, MusicConverter, decode_music
from data_pipeline.streams.vectors import Vectors
from data_pipeline.vector_data import Values


class MusicConfig(MediaData):
    """Zeros and ones: which of 88 keys sound at each of a few steps, step by step."""

    kind: Literal["music"]
    steps: int = Field(default=1, gt=0)
    """Of one row."""
    steps_per_quarter: int = Field(default=4, gt=0)
    """The time grid, of MIDI and ABC; JSON has steps of its own."""
    form: Form = "roll"
    outside: Literal["drop_notes", "unfit"] = "drop_notes"
    """Notes that no piano has are left out; or the piece is."""

    def converter(self) -> MusicConverter:
        return MusicConverter(steps_per_quarter=self.steps_per_quarter, form=self.form, outside=self.outside)

    @property
    def shape(self) -> tuple[int, ...]:
        return (1, self.steps, KEYS)

    @property
    def values(self) -> Values:
        return "binary"

    def _decoded(self, shards: MediaShards, split: str) -> Vectors:
        def decode(item: int, part: int) -> np.ndarray:
            length, start = int(shards.lengths[item]), part * self.steps
            if self.form == "notes":
                return decode_music(shards.payload(item), self.form, length)[start : start + self.steps].reshape(-1)
            begin = shards.num_bytes(item) - (length - start) * KEYS  # steps are the end of the payload
            return np.frombuffer(shards.payload(item, begin, begin + self.steps * KEYS), np.uint8)

        return media_vectors(
            shards,
            windows_of(shards.lengths, self.steps),
            decode,
            lambda rolls_RD, _: rolls_RD,
            num_values=self.steps * KEYS,
            reading=f"music/{self.steps}",
        )
