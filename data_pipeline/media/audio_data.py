"""Data of kind `audio`: prepared recordings, cut into windows of equal length from their beginning; what is left at
their end is left out.

Legend: R windows of a batch, T samples of one.
"""

from typing import Literal

import numpy as np
from pydantic import Field

from data_pipeline.media.audio import AudioConverter, Channels, Encoding, decode_flac
from data_pipeline.media.media_data import MediaData
from data_pipeline.media.media_rows import media_vectors, windows_of
from data_pipeline.media.media_shards import MediaShards
from data_pipeline.streams.vectors import Vectors
from data_pipeline.vector_data import Values

LEVELS = {"wav": 65_536, "flac": 65_536, "mu_law": 256}
SAMPLE_BYTES = {"wav": 2, "mu_law": 1}


class AudioConfig(MediaData):
    """Windows of samples in [0, 1], silence at a half (of mu_law the codes, evenly spaced), with the class as the
    label."""

    kind: Literal["audio"]
    window: int = Field(gt=0)
    """Samples."""
    rate: int = Field(gt=0)
    """Samples a second, of what is prepared."""
    encoding: Encoding = "wav"
    channels: Channels = "mix"
    most_channels: int = Field(default=8, ge=1)

    def converter(self) -> AudioConverter:
        return AudioConverter(
            rate=self.rate, encoding=self.encoding, channels=self.channels, most_channels=self.most_channels
        )

    @property
    def shape(self) -> tuple[int, ...]:
        return (1, self.window)

    @property
    def values(self) -> Values:
        return "levels"

    @property
    def num_levels(self) -> int | None:
        return LEVELS[self.encoding]

    @property
    def sample_rate(self) -> int | None:
        return self.rate

    def _decoded(self, shards: MediaShards, split: str) -> Vectors:
        most = LEVELS[self.encoding] - 1

        def decode(item: int, part: int) -> np.ndarray:
            start = part * self.window
            if self.encoding == "flac":
                return decode_flac(shards.payload(item), start, self.window)
            size = SAMPLE_BYTES[self.encoding]  # samples are the end of the payload
            begin = shards.num_bytes(item) - (int(shards.lengths[item]) - start) * size
            data = shards.payload(item, begin, begin + self.window * size)
            return np.frombuffer(data, np.uint8 if self.encoding == "mu_law" else "<i2")

        def finish(samples_RT: np.ndarray, number_R: np.ndarray) -> np.ndarray:
            if self.encoding == "mu_law":
                return samples_RT
            return (samples_RT.astype(np.float32) + np.float32((most + 1) // 2)) / np.float32(most)

        return media_vectors(
            shards,
            windows_of(shards.lengths, self.window),
            decode,
            finish,
            num_values=self.window,
            reading=f"audio/{self.window}",
            most=most if self.encoding == "mu_law" else 1,
        )
