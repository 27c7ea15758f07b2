"""Spoken digits: the set's own split, windows, labels and what is refused; on made-up wavs, and on the real ones."""

import io
import tarfile
import wave
from pathlib import Path

import numpy as np
import pytest
import zstandard

from data_pipeline.config import BadInput
from data_pipeline.spoken_digits import SpokenDigitsConfig
from tests.evals.benchmark_data import benchmark_data

WINDOW = 10


def wav(samples: np.ndarray, *, rate: int = 8000, channels: int = 1, width: int = 2) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(samples.astype({1: "u1", 2: "<i2"}[width]).tobytes())
    return buffer.getvalue()


@pytest.fixture
def recordings() -> dict[str, bytes]:
    """Two speakers, digits 3 and 7, numbers 0, 4, 5, 9, 10 and 49; each of 25 samples that are its own."""
    made = {}
    for speaker in ("george", "theo"):
        for digit in (3, 7):
            for number in (0, 4, 5, 9, 10, 49):
                start = 2000 * digit + 10 * number + (1000 if speaker == "theo" else 0)
                made[f"{digit}_{speaker}_{number}.wav"] = wav(np.arange(start, start + 25))
    return made


def directory_of(recordings: dict[str, bytes], path: Path) -> str:
    for name, content in recordings.items():
        (path / name).write_bytes(content)
    return str(path)


def config(directory: str, **settings: object) -> SpokenDigitsConfig:
    return SpokenDigitsConfig(kind="spoken_digits", directory=directory, **{"window": WINDOW, **settings})  # type: ignore[arg-type]


def test_splits_are_by_number_and_windows_are_in_order(recordings: dict[str, bytes], tmp_path: Path) -> None:
    data = config(directory_of(recordings, tmp_path), label="digit")
    wanted = {"test": (0, 4), "valid": (5, 9), "train": (10, 49)}
    for split, numbers in wanted.items():
        vectors = data.vectors(split)
        starts = {2000 * d + 10 * n + s for d in (3, 7) for n in numbers for s in (0, 1000)}
        first = np.rint(vectors.values[:, 0].astype(np.float64) * 65_535 - 32_768).astype(int)
        assert set(first) == starts | {start + WINDOW for start in starts}, "5 samples are left out"
        assert len(first) == len(set(first))
        assert np.array_equal(vectors.labels, first // 2000)
        steps = np.diff(vectors.values.astype(np.float64) * 65_535, axis=1)
        assert np.allclose(steps, 1, atol=0.02)


def test_labels_are_speakers(recordings: dict[str, bytes], tmp_path: Path) -> None:
    data = config(directory_of(recordings, tmp_path))
    vectors = data.vectors("test")
    first = np.rint(vectors.values[:, 0].astype(np.float64) * 65_535 - 32_768).astype(int)
    assert np.array_equal(vectors.labels, np.where(first % 2000 >= 1000, 4, 0))
    assert (data.num_classes, data.num_levels, data.shape) == (6, 65_536, (1, WINDOW))


def test_only_the_recordings_of_the_split_are_read(
    recordings: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, read = config(directory_of(recordings, tmp_path)), []
    right = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read.append(path.name) or right(path))
    data.vectors("valid")
    assert sorted(read) == sorted(name for name in recordings if name.endswith(("_5.wav", "_9.wav")))


@pytest.mark.parametrize("suffix", [".tar", ".tar.zst"])
def test_an_archive_is_read_as_its_directory(recordings: dict[str, bytes], suffix: str, tmp_path: Path) -> None:
    folder = tmp_path / "wavs"
    folder.mkdir()
    directory_of(recordings, folder)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.add(folder, arcname="recordings")
    content = packed.getvalue()
    path = tmp_path / f"recordings{suffix}"
    path.write_bytes(zstandard.ZstdCompressor().compress(content) if suffix == ".tar.zst" else content)
    assert config(str(path)).fingerprint() == config(str(folder)).fingerprint()
    path.write_bytes(path.read_bytes()[: len(path.read_bytes()) // 2])
    with pytest.raises(BadInput, match=r"cannot be read \(.*\); get it again"):
        config(str(path)).fingerprint()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("1_theo_0.wav", wav(np.zeros(20), rate=16_000), r"1_theo_0.wav: has 16000 samples a second, but data.rate is"),
        ("1_theo_0.wav", wav(np.zeros(20), channels=2), r"1_theo_0.wav: has 2 channels; mix them into one"),
        ("1_theo_0.wav", wav(np.zeros(20), width=1), r"1_theo_0.wav: has 8 bits a sample; store it with 16"),
        ("1_theo_0.wav", wav(np.zeros(20))[:-6], r"1_theo_0.wav: has 17 samples, its header says 20; get it again"),
        ("1_theo_0.wav", b"RIFF", r"1_theo_0.wav: no wav file of plain samples"),
        ("theo.wav", wav(np.zeros(20)), r"theo.wav: no name of a recording, which is DIGIT_SPEAKER_NUMBER.wav"),
        ("1_anna_0.wav", wav(np.zeros(20)), r"the speaker 'anna' is none of data.speakers \(george, .*\); name all"),
        ("1_theo_0.wav", wav(np.zeros(5)), r"'test' has data.window 10 samples, the longest 5; make the"),
        (
            "1_theo_10.wav",
            wav(np.zeros(20)),
            r"has no recording of the split 'test', which goes by the number",
        ),
    ],
)
def test_what_cannot_be_read_is_refused(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput, match=message):
        config(str(tmp_path)).vectors("test")


def test_no_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"neither a directory of wavs nor a .tar or .tar.zst of them"):
        config(str(tmp_path / "none")).vectors("test")


def test_the_real_recordings() -> None:
    path = benchmark_data() / "fsdd" / "fsdd_recordings.tar.zst"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    vectors = config(str(path), window=2000, label="digit").vectors("test")
    assert set(vectors.labels) == set(range(10))
    assert vectors.values.shape[1] == 2000
    assert 300 <= len(vectors.values) <= 900, "300 recordings, most of one or two windows"
    assert abs(float(vectors.values.mean()) - 0.5) < 0.01
