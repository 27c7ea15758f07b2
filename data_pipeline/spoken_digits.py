"""The Free Spoken Digit Dataset (https://github.com/Jakobovski/free-spoken-digit-dataset): 3,000 recordings at 8 kHz.

A directory or a .tar(.zst) of its wavs, named DIGIT_SPEAKER_NUMBER.wav. Its own rule is the split: numbers 0 to 4 are
the test, and of the others we take 5 to 9 for validation. Each recording is cut into windows of equal length from its
beginning; what is left at its end is left out.

Shape legend: N windows, T samples of a window.
"""

import io
import re
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from data_pipeline.archives.decompression import DAMAGE, ExpandsTooFar, decompressed
from data_pipeline.archives.tar_members import members_in
from data_pipeline.config import BadInput
from data_pipeline.streams.vectors import Vectors
from data_pipeline.vector_data import Values, VectorData

LEVELS = 65_536
"""Of 16 bits."""
NAME = re.compile(r"(?P<digit>\d)_(?P<speaker>\w+)_(?P<number>\d+)\.wav")
SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
NUMBERS = {"test": range(5), "valid": range(5, 10), "train": range(10, 1_000_000)}


class SpokenDigitsConfig(VectorData):
    """Windows of samples in [0, 1], silence at a half, with the digit or the speaker as the label."""

    kind: Literal["spoken_digits"]
    directory: str
    """With the wavs, or the archive of them."""
    window: int = Field(gt=0)
    """Samples; 8,000 are a second."""
    label: Literal["digit", "speaker"] = "speaker"
    speakers: tuple[str, ...] = Field(default=SPEAKERS, min_length=1)
    """In the order of their labels."""
    rate: int = Field(default=8000, gt=0)
    """Samples a second; a recording of another rate is refused."""

    @property
    def shape(self) -> tuple[int, ...]:
        return (1, self.window)

    @property
    def values(self) -> Values:
        return "levels"

    @property
    def num_levels(self) -> int | None:
        return LEVELS

    @property
    def num_classes(self) -> int | None:
        return 10 if self.label == "digit" else len(self.speakers)

    @property
    def sample_rate(self) -> int | None:
        return self.rate

    def _vectors(self, split: str) -> Vectors:
        windows, labels, longest = [], [], 0
        for name, content in sorted(self._recordings(split)):
            samples_T = read_wave(content, name, rate=self.rate)
            count, longest = len(samples_T) // self.window, max(longest, len(samples_T))
            windows.append(samples_T[: count * self.window].reshape(count, self.window))
            labels += [self._label(name)] * count
        if not labels:
            raise BadInput(
                f"data.directory {self.directory}: no recording of the split {split!r} has data.window {self.window:,} "
                f"samples, the longest {longest:,}; make the window shorter"
                if longest
                else f"data.directory {self.directory}: has no recording of the split {split!r}, which goes by the "
                "number at the end of DIGIT_SPEAKER_NUMBER.wav: 0 to 4 test, 5 to 9 valid, 10 and up train; number "
                "them so, or give the directory of the wavs"
            )
        levels_NT = np.concatenate(windows).astype(np.float32) + np.float32(LEVELS // 2)
        return Vectors(levels_NT / np.float32(LEVELS - 1), np.array(labels, dtype=np.int64))

    def _label(self, name: str) -> int:
        found = _parts(name)
        if self.label == "digit":
            return int(found["digit"])
        if found["speaker"] not in self.speakers:
            raise BadInput(
                f"{name}: the speaker {found['speaker']!r} is none of data.speakers ({', '.join(self.speakers)}); "
                "name all of them there"
            )
        return self.speakers.index(found["speaker"])

    def _recordings(self, split: str) -> Iterator[tuple[str, bytes]]:
        """(name, content) of the split's wavs."""
        return _wavs(Path(self.directory), lambda name: int(_parts(name)["number"]) in NUMBERS[split])


def _parts(name: str) -> dict[str, str]:
    found = NAME.fullmatch(name)
    if found is None:
        raise BadInput(f"{name}: no name of a recording, which is DIGIT_SPEAKER_NUMBER.wav; rename or remove it")
    return found.groupdict()


def _wavs(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """(name, content) of those whose names are wanted; no other is read."""
    if path.is_dir():
        yield from ((file.name, file.read_bytes()) for file in path.rglob("*.wav") if wanted(file.name))
    elif path.is_file() and path.name.endswith((".tar", ".tar.zst")):
        yield from _archived(path, wanted)
    else:
        raise BadInput(f"data.directory {path}: neither a directory of wavs nor a .tar or .tar.zst of them")


def _archived(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    try:
        with path.open("rb") as file, decompressed(file, path.name) as plain:
            for member in members_in(plain):
                name = Path(member.name).name
                if member.refusal is None and not member.is_folder and name.endswith(".wav") and wanted(name):
                    yield name, member.read()
    except (*DAMAGE, ExpandsTooFar, OSError) as error:
        raise BadInput(f"{path}: cannot be read ({error}); get it again") from error


def read_wave(content: bytes, name: str, *, rate: int) -> np.ndarray:
    """[T] int16 of a wav; BadInput unless it is whole, mono, of 16 bits and of this rate."""
    try:
        with wave.open(io.BytesIO(content)) as file:
            has = file.getparams()
            frames = file.readframes(has.nframes)
    except (wave.Error, EOFError) as error:
        raise BadInput(f"{name}: no wav file of plain samples ({error})") from error
    if has.nchannels != 1:
        raise BadInput(f"{name}: has {has.nchannels} channels; mix them into one")
    if has.sampwidth != 2:
        raise BadInput(f"{name}: has {8 * has.sampwidth} bits a sample; store it with 16")
    if has.framerate != rate:
        raise BadInput(f"{name}: has {has.framerate} samples a second, but data.rate is {rate}; resample it")
    if len(frames) != 2 * has.nframes:
        raise BadInput(f"{name}: has {len(frames) // 2:,} samples, its header says {has.nframes:,}; get it again")
    return np.frombuffer(frames, "<i2")
