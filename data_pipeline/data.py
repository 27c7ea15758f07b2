"""The kinds of data a recipe can name.

Each has `stream(reads=, length=, micro_batches=, rows=, seed=, split=)`, `vocab_size()` (None: not tokens) and
`fingerprint()`, which changes when any value of the data does.
"""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from data_pipeline.digits import DigitsConfig
from data_pipeline.markov import MarkovConfig
from data_pipeline.media.audio_data import AudioConfig
from data_pipeline.media.image_data import ImagesConfig
from data_pipeline.media.media_data import MediaData
from data_pipeline.media.music_data import MusicConfig
from data_pipeline.mixture import MixtureConfig
from data_pipeline.mnist import MnistConfig
from data_pipeline.parallel_text import ParallelTextConfig
from data_pipeline.points import EightGaussiansConfig
from data_pipeline.prepared_text import PreparedConfig, PreparedText
from data_pipeline.spoken_digits import SpokenDigitsConfig
from data_pipeline.streams.reading import Reads as Reads
from data_pipeline.swap_pairs import SwapPairsConfig
from data_pipeline.text import TextConfig
from data_pipeline.waves import WavesConfig

DataConfig = Annotated[
    TextConfig
    | PreparedConfig
    | MixtureConfig
    | MarkovConfig
    | DigitsConfig
    | MnistConfig
    | EightGaussiansConfig
    | WavesConfig
    | SpokenDigitsConfig
    | ImagesConfig
    | AudioConfig
    | MusicConfig
    | SwapPairsConfig
    | ParallelTextConfig,
    Field(discriminator="kind"),
]


def prepared_directories(data: DataConfig) -> dict[str, Path]:
    """Of all that `launch.py prepare` made of it, by source; none where the data are read or made otherwise."""
    return data.directories() if isinstance(data, PreparedText | MixtureConfig | MediaData) else {}
