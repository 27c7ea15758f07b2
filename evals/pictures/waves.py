"""Sound to hear and to see.

Shape legend: T samples of a wave, in [-1, 1].
"""

import wave
from pathlib import Path

import numpy as np
from torch import Tensor

from data_pipeline.config import BadInput

FULL_SCALE = 32767
WINDOW = 256
"""Samples of a spectrum."""


def write_wav(path: Path, wave_T: Tensor, rate: int) -> None:
    """16 bits, one channel, `rate` samples a second; what lies beyond [-1, 1] is cut off. BadInput as `write_png`."""
    numbers = (wave_T.clamp(-1, 1) * FULL_SCALE).round().numpy().astype("<i2")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(rate)
            file.writeframes(numbers.tobytes())
    except OSError as error:
        raise BadInput(f"{path}: cannot be written: {error.strerror}") from error


def decibels(wave_T: Tensor) -> np.ndarray:
    """[frequencies, times] power of Hann windows that overlap by half, in decibels below the loudest, down to -80."""
    samples = np.pad(wave_T.double().numpy(), (0, max(0, WINDOW - len(wave_T))))
    starts = range(0, len(samples) - WINDOW + 1, WINDOW // 2)
    frames = np.stack([samples[start : start + WINDOW] for start in starts]) * np.hanning(WINDOW)
    power = np.abs(np.fft.rfft(frames, axis=1)).T ** 2
    most = power.max() or 1.0
    found: np.ndarray = np.maximum(10 * np.log10(np.maximum(power / most, 1e-8)), -80.0)
    return found


def write_spectrograms(path: Path, waves_NT: Tensor, rate: int) -> None:
    """Wave and spectrogram of each, below one another, as PNG. BadInput as `write_png`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 2.4 * len(waves_NT)), layout="constrained")
    for row, wave_T in enumerate(waves_NT):
        seconds = len(wave_T) / rate
        line = figure.add_subplot(len(waves_NT), 2, 2 * row + 1)
        line.plot(np.arange(len(wave_T)) / rate, wave_T.numpy(), linewidth=0.5)
        line.set(xlabel="s", ylim=(-1, 1))
        spectrum = figure.add_subplot(len(waves_NT), 2, 2 * row + 2)
        spectrum.imshow(decibels(wave_T), origin="lower", aspect="auto", extent=(0, seconds, 0, rate / 2000))
        spectrum.set(xlabel="s", ylabel="kHz")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="png", dpi=100)
    except OSError as error:
        raise BadInput(f"{path}: cannot be written: {error.strerror}") from error
