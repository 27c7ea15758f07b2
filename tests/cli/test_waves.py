"""Waves through the command line: what a WaveNet draws can be heard and seen."""

import wave
from pathlib import Path

import numpy as np
import pytest

from tests.cli.command_line import Forks

LENGTH, RATE = 24, 6000


def spoken(directory: Path) -> list[str]:
    """Overrides for recordings, made up, of one speaker at a rate of their own."""
    directory.mkdir()
    for number in range(12):
        samples_T = 9000 * np.sin(2 * np.pi * 700 / RATE * np.arange(10 * LENGTH) + number)
        with wave.open(str(directory / f"{number % 10}_theo_{number}.wav"), "wb") as file:
            file.setparams((1, 2, RATE, 0, "NONE", ""))
            file.writeframes(samples_T.astype("<i2").tobytes())
    return [
        "data.kind=spoken_digits", f"data.directory={directory}", f"data.window={LENGTH}", f"data.rate={RATE}",
        "data.speakers=[theo]", "model.levels=65536", "model.classes=1",
    ]  # fmt: skip


def heard(path: Path, rate: int) -> np.ndarray:
    with wave.open(str(path)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (rate, 1, 2)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32767


@pytest.mark.parametrize("data", ["waves", "spoken_digits"])
def test_waves_are_heard_and_seen(data: str, segue: Forks, tmp_path: Path) -> None:
    overrides = ["data.rate=4000"] if data == "waves" else spoken(tmp_path / "wavs")
    rate, run = (4000 if data == "waves" else RATE), tmp_path / "run"
    trained = segue.run("train", "tiny_wavenet", "--run", run, "steps=10", *overrides, cwd=tmp_path)
    assert trained.code == 0, trained.err
    drawn = segue.run("sample", run, "--count", 18, "--out", "heard/waves.png", cwd=tmp_path)
    assert drawn.code == 0, drawn.err
    values_NT = np.load(tmp_path / "heard" / "waves.npy")
    assert values_NT.shape == (18, LENGTH)
    assert float(values_NT.min()) >= 0
    for number, values_T in enumerate(values_NT):
        sound_T = heard(tmp_path / "heard" / f"waves-{number}.wav", rate)
        np.testing.assert_allclose(sound_T, 2 * values_T - 1, atol=0.6 / 32767, err_msg="silence is zero")
    assert (tmp_path / "heard" / "waves.png").read_bytes().startswith(b"\x89PNG")
    reported = segue.run("report", run, cwd=tmp_path)
    assert reported.code == 0, reported.err
    folder = run / "report"
    assert (folder / "samples.png").read_bytes().startswith(b"\x89PNG")
    assert 'src="report/samples.png"' in (run / "report.html").read_text()
    assert [len(heard(folder / f"samples-{number}.wav", rate)) for number in range(4)] == [LENGTH] * 4
