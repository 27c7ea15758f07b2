"""Audio: samples are kept to the bit where nothing has to be changed, and windows are cut where they should be."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from data_pipeline.config import BadInput
from data_pipeline.media.audio import AudioConverter, at_rate, decode_flac, encode_flac
from data_pipeline.media.mu_law import MU, mu_law_codes
from data_pipeline.spoken_digits import SpokenDigitsConfig
from tests.data_pipeline.media.media_files import abouts, config, prepared, random_samples, sound, write

FEW = random_samples(37)
SPOKEN = {
    "kind": "pattern",
    "pattern": r"(?P<digit>\d)_(?P<speaker>\w+)_(?P<number>\d+)\.\w+$",
    "field": "speaker",
}


@settings(max_examples=60, deadline=None)
@given(arrays(np.int16, st.integers(1, 300)), st.data())
def test_flac_is_exact(samples: np.ndarray, draw: st.DataObject) -> None:
    start = draw.draw(st.integers(0, len(samples) - 1))
    count = draw.draw(st.integers(1, len(samples) - start))
    np.testing.assert_array_equal(decode_flac(encode_flac(samples, 8000), start, count), samples[start : start + count])


@pytest.mark.parametrize("encoding", ["wav", "flac"])
def test_it_gives_what_the_kind_spoken_digits_gives(encoding: str, tmp_path: Path) -> None:
    files = {
        f"{number % 10}_{speaker}_{number}.wav": sound(random_samples(25 + number, seed=number))
        for speaker in ("ann", "bob")
        for number in range(12)
    }
    corpus = write(tmp_path / "corpus", files)
    data = config(
        "audio",
        tmp_path / "out",
        corpus,
        ["*.wav"],
        encoding=encoding,
        shard_bytes=3000,
        corpus_labels=SPOKEN,
        corpus_classes=["ann", "bob"],
        corpus_valid=r".*_[5-9]\.wav",
        corpus_test=r".*_[0-4]\.wav",
    )
    manifest = prepared(data)
    assert len(manifest.splits["test"].shards) > 1
    digits = SpokenDigitsConfig.model_validate(
        {"kind": "spoken_digits", "directory": str(corpus), "window": 10, "speakers": ["ann", "bob"]}
    )
    for split in ("train", "valid", "test"):
        ours, theirs = data.vectors(split), digits.vectors(split)
        np.testing.assert_array_equal(ours.values, theirs.values)
        np.testing.assert_array_equal(ours.labels, theirs.labels)
    assert (data.shape, data.num_levels, data.num_classes, data.sample_rate) == ((1, 10), 65_536, 2, 8000)
    assert abouts(tmp_path / "out")[0] == {
        "source": "0_ann_0.wav",
        "digit": "0",
        "speaker": "ann",
        "number": "0",
        "class": 0,
        "rate": 8000,
        "channels": 1,
        "samples": 25,
        "format": "WAV",
        "subtype": "PCM_16",
    }


def test_channels_are_mixed_and_rates_made_equal(tmp_path: Path) -> None:
    left = np.full(4000, 1000, np.int16)
    corpus = write(
        tmp_path / "corpus", {"a.wav": sound(np.stack([left, 3 * left], 1)), "b.flac": sound(left, 16_000, "FLAC")}
    )
    data = config("audio", tmp_path / "out", corpus, ["*"])
    prepared(data)
    shards = data.shards()
    assert shards.lengths.tolist() == [4000, 2000]
    samples = [np.frombuffer(shards.payload(item)[44:], "<i2") for item in (0, 1)]
    assert set(samples[0]) == {2000}
    assert np.abs(samples[1][200:-200].astype(int) - 1000).max() <= 2


def test_a_tone_is_the_same_tone_at_another_rate() -> None:
    """Resampling is that of a filter: against the tone itself, away from the ends."""
    tone = [np.sin(2 * np.pi * 440 * np.arange(rate // 4) / rate) / 2 for rate in (44_100, 8000)]
    ours = at_rate(tone[0][:, None], 44_100, 8000) / 32768
    assert np.abs(ours - tone[1])[200:-200].max() < 2e-3


def test_mu_law_codes_are_the_nearest_in_the_companded_scale(tmp_path: Path) -> None:
    samples = np.arange(-32768, 32768, dtype=np.int64).astype(np.int16)
    codes = mu_law_codes(samples)
    assert (codes.min(), codes.max(), np.diff(codes.astype(int)).min()) == (0, 255, 0)
    companded = 2 * codes.astype(np.float64) / MU - 1
    x, back = samples / 32768.0, np.sign(companded) * np.expm1(np.abs(companded) * np.log1p(MU)) / MU
    half_step = np.log(256) / 255 * (1 / 255 + np.maximum(np.abs(x), np.abs(back)))  # of the companded scale, there
    assert bool((np.abs(back - x) <= half_step).all())
    np.testing.assert_array_equal(mu_law_codes(np.round(back * 32767).astype(np.int16)), codes)
    corpus = write(tmp_path / "corpus", {"a.wav": sound(FEW)})
    data = config("audio", tmp_path / "out", corpus, ["*"], encoding="mu_law")
    prepared(data)
    np.testing.assert_array_equal(np.round(data.vectors("train").values * 255), mu_law_codes(FEW)[:30].reshape(3, 10))
    assert data.num_levels == 256


BAD = {
    "broken": b"RIFF and nothing more",
    "cut_off": sound(FEW)[:-10],
    "empty": sound(FEW[:0]),
    "too_long": sound(random_samples(900)),
    "wrong_channels": sound(np.stack([FEW, FEW], 1)),
}


@pytest.mark.parametrize("reason", BAD)
def test_bad_recordings_are_counted_or_end_it(reason: str, tmp_path: Path) -> None:
    corpus = write(tmp_path / "corpus", {"a.wav": sound(FEW), "b.wav": BAD[reason]})
    options = {"corpus_caps": {"seconds": 0.1}, "channels": "mono"}
    data = config("audio", tmp_path / "out", corpus, ["*.wav"], **options)
    assert prepared(data).report == {reason: 1}
    with pytest.raises(BadInput, match=rf"b\.wav: {reason}: "):
        prepared(config("audio", tmp_path / "strict", corpus, ["*.wav"], corpus_broken="stop", **options))


def test_samples_are_capped_whatever_the_rate(tmp_path: Path) -> None:
    corpus = write(tmp_path / "corpus", {"a.wav": sound(FEW), "b.flac": sound(random_samples(900), 600_000, "FLAC")})
    data = config("audio", tmp_path / "out", corpus, ["*"], corpus_caps={"seconds": 0.1, "samples": 800})
    assert prepared(data).report == {"too_long": 1}


def test_a_flac_that_is_cut_off_is_found(tmp_path: Path) -> None:
    whole = sound(random_samples(20_000), format="FLAC")
    corpus = write(tmp_path / "corpus", {"a.wav": sound(FEW), "b.flac": whole[: len(whole) // 2]})
    report = prepared(config("audio", tmp_path / "out", corpus, ["*"])).report
    assert report in ({"cut_off": 1}, {"broken": 1})


def test_windows_longer_than_all_recordings_are_refused(tmp_path: Path) -> None:
    data = config("audio", tmp_path / "out", write(tmp_path / "corpus", {"a.wav": sound(FEW)}), ["*"], window=38)
    prepared(data)
    with pytest.raises(BadInput, match=r"none of the 1 items .* the longest 37; make rows shorter"):
        data.vectors("train")


def test_the_same_samples_give_the_same_bytes() -> None:
    converter = AudioConverter(rate=8000, encoding="flac")
    assert converter.encode(FEW) == converter.encode(FEW.copy())
