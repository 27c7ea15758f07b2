"""Recordings as they are stored: one channel at one rate, of 16 bits (WAV, FLAC) or in mu-law codes of 8.

Legend: T samples, C channels.
"""

import io
import wave
from typing import Any, Literal

import numpy as np
from pydantic import Field

from data_pipeline.arrays import npy_bytes
from data_pipeline.config import Config
from data_pipeline.media.item import Caps, Entry, Stored, Unfit, told
from data_pipeline.media.libraries import library
from data_pipeline.media.mu_law import mu_law_codes

FORMATS = ("WAV", "WAVEX", "FLAC", "OGG")
Encoding = Literal["wav", "flac", "mu_law"]
Channels = Literal["mix", "mono"]
"""The mean of all channels; or recordings of several are left out."""


class AudioConverter(Config):
    """WAV, FLAC and OGG to one channel at one rate."""

    kind: Literal["audio"] = "audio"
    rate: int = Field(gt=0)
    """Samples a second; recordings of other rates are resampled by soxr, at its high quality."""
    encoding: Encoding = "wav"
    channels: Channels = "mix"
    most_channels: int = Field(default=8, ge=1)

    @property
    def endings(self) -> tuple[str, ...]:
        return (".wav", ".flac", ".ogg")

    @property
    def suffix(self) -> str:
        return {"wav": "wav", "flac": "flac", "mu_law": "npy"}[self.encoding]

    def parts(self, entry: Entry, caps: Caps) -> list[Entry]:
        return [entry]

    def convert(self, entry: Entry, caps: Caps) -> Stored:
        assert isinstance(entry.content, bytes), "arrays are images"
        if entry.name.lower().endswith(".wav"):
            _check_whole_wav(entry.content)
        samples_TC, rate, facts = self._read(entry.content, caps)
        samples_T = at_rate(samples_TC, rate, self.rate)
        if not len(samples_T):
            raise Unfit("empty", f"no sample is left of it at {self.rate:,} a second")
        return Stored(self.encode(samples_T), len(samples_T), facts)

    def encode(self, samples_T: np.ndarray) -> bytes:
        """int16 [T] as it is stored."""
        if self.encoding == "mu_law":
            return npy_bytes(mu_law_codes(samples_T))
        return encode_wav(samples_T, self.rate) if self.encoding == "wav" else encode_flac(samples_T, self.rate)

    def _read(self, content: bytes, caps: Caps) -> tuple[np.ndarray, int, dict[str, int | str]]:
        """[T, C] int16 where it is stored so, else float64; the rate; the sizes of the original."""
        soundfile = library("soundfile")
        try:
            with soundfile.SoundFile(io.BytesIO(content)) as file:
                self._check(file, caps)
                kind = "int16" if file.subtype == "PCM_16" else "float64"
                samples_TC: np.ndarray = file.read(file.frames, dtype=kind, always_2d=True)
                if len(samples_TC) != file.frames:
                    raise Unfit("cut_off", f"{len(samples_TC):,} samples of {file.frames:,} that its header names")
                facts: dict[str, int | str] = {"rate": file.samplerate, "channels": file.channels}
                facts |= {"samples": file.frames, "format": file.format, "subtype": file.subtype}
                rate = file.samplerate
        except (soundfile.SoundFileError, RuntimeError, ValueError, TypeError) as error:
            raise Unfit("broken", told(error)) from error
        if samples_TC.dtype == np.float64 and not np.isfinite(samples_TC).all():
            raise Unfit("broken", "it has samples that are not finite")
        return samples_TC, rate, facts

    def _check(self, file: Any, caps: Caps) -> None:
        """By its header, before anything is decoded."""
        if file.format not in FORMATS:
            raise Unfit("broken", f"its format is {file.format}, none of {', '.join(FORMATS)}")
        if file.frames <= 0:
            raise Unfit("empty", "it has no samples")
        most = 1 if self.channels == "mono" else self.most_channels
        if file.channels > most:
            raise Unfit("wrong_channels", f"{file.channels} channels, more than {most}")
        if file.frames > caps.seconds * file.samplerate:
            raise Unfit("too_long", f"{file.frames / file.samplerate:,.0f} seconds, more than {caps.seconds:,g}")
        if file.frames * file.channels > caps.samples:
            raise Unfit("too_long", f"{file.frames * file.channels:,} samples, more than {caps.samples:,}")


def at_rate(samples_TC: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """int16 [T] of one channel; those that already are such are not touched."""
    if samples_TC.dtype == np.int16 and samples_TC.shape[1] == 1 and rate == wanted:
        return samples_TC[:, 0]
    values_TC = samples_TC / 32768.0 if samples_TC.dtype == np.int16 else samples_TC
    mixed_T = values_TC.mean(axis=1)
    if rate != wanted:
        mixed_T = library("soxr").resample(mixed_T, rate, wanted, quality="HQ")
    return np.clip(np.rint(mixed_T * 32768.0), -32768, 32767).astype(np.int16)


def encode_wav(samples_T: np.ndarray, rate: int) -> bytes:
    """int16 [T]; the samples are the end of the file."""
    stream = io.BytesIO()
    with wave.open(stream, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples_T.astype("<i2").tobytes())
    return stream.getvalue()


def encode_flac(samples_T: np.ndarray, rate: int) -> bytes:
    """int16 [T], without loss; the same bytes for the same samples (and version of libFLAC)."""
    stream = io.BytesIO()
    library("soundfile").write(stream, samples_T, rate, format="FLAC", subtype="PCM_16")
    return stream.getvalue()


def decode_flac(content: bytes, start: int, count: int) -> np.ndarray:
    """int16 [count] from sample `start` on; RuntimeError where it is none."""
    with library("soundfile").SoundFile(io.BytesIO(content)) as file:
        file.seek(start)
        samples_T: np.ndarray = file.read(count, dtype="int16")
    return samples_T


def _check_whole_wav(content: bytes) -> None:
    """Unfit where its samples are fewer than its header says, which libsndfile takes as they are."""
    place = 12
    while place + 8 <= len(content):
        size = int.from_bytes(content[place + 4 : place + 8], "little")
        if content[place : place + 4] == b"data":
            if place + 8 + size > len(content):
                has = len(content) - place - 8
                raise Unfit("cut_off", f"{has:,} bytes of samples, {size:,} by its header")
            return
        place += 8 + size + (size & 1)
