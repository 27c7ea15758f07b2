"""Whatever bytes are in a file: it is converted, or there is a reason to leave it out; nothing else comes of it."""

import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.media.audio import AudioConverter
from data_pipeline.media.images import ImageConverter
from data_pipeline.media.item import Caps, Converter, Entry, Stored, Unfit
from data_pipeline.media.music import MusicConverter
from tests.data_pipeline.media.media_files import chorales, midi, png, random_images, random_samples, sound

CAPS = Caps(pixels=10_000, seconds=10, notes=1000, steps=1000)
IMAGES = ImageConverter(height=4, width=3, recolour=True, fit="crop")
AUDIO = AudioConverter(rate=8000)
MUSIC = MusicConverter()
WHOLE: dict[str, tuple[Converter, bytes]] = {
    "a.png": (IMAGES, png(random_images(1, 9, 7)[0])),
    "a.jpg": (IMAGES, png(random_images(1, 9, 7, 3)[0], "JPEG")),
    "a.wav": (AUDIO, sound(random_samples(50), 16_000)),
    "a.flac": (AUDIO, sound(random_samples(50), format="FLAC")),
    "a.ogg": (AUDIO, sound(random_samples(500) / 40_000, format="OGG", subtype="VORBIS")),
    "a.mid": (MUSIC, midi([(t * 240, 480, 60 + t) for t in range(9)])),
    "a.json": (MUSIC, b'{"train": [[[60, 64], [], [62.0, -1]]]}'),
    "a.json.gz": (MUSIC, chorales(train=[[[60, 64], [], [62]]])),
}


def outcome(name: str, content: bytes) -> list[Stored]:
    """Of each item in a file; empty where it was refused."""
    converter = WHOLE[name][0]
    try:
        parts = converter.parts(Entry(name, content), CAPS)
        return [converter.convert(part, CAPS) for part in parts]
    except Unfit:
        return []


@pytest.mark.parametrize("name", WHOLE)
def test_the_whole_file_is_converted(name: str) -> None:
    (stored,) = outcome(name, WHOLE[name][1])
    assert stored.payload


@pytest.mark.parametrize("name", WHOLE)
@settings(max_examples=80, deadline=None)
@given(st.data())
def test_damage_is_told_or_bears_no_harm(name: str, data: st.DataObject) -> None:
    content = bytearray(WHOLE[name][1])
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    for stored in outcome(name, bytes(content)):
        assert stored.length >= 1
        assert len(stored.payload) < 1_000_000


@pytest.mark.parametrize("name", WHOLE)
@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=200))
def test_noise_is_refused(name: str, content: bytes) -> None:
    head = WHOLE[name][1][: min(16, len(content))] if len(content) % 2 else b""
    for stored in outcome(name, head + content):
        assert stored.length >= 1


def test_values_of_a_mutated_piece_are_zeros_and_ones() -> None:
    (stored,) = outcome("a.json", WHOLE["a.json"][1])
    roll = np.frombuffer(stored.payload[-3 * 88 :], np.uint8).reshape(3, 88)
    assert [np.flatnonzero(row).tolist() for row in roll] == [[39, 43], [], [41]]


@pytest.mark.parametrize("name", ["a.png", "a.wav", "a.flac", "a.json"])
def test_what_is_wrong_is_told_without_places_in_memory(name: str) -> None:
    converter, entry = WHOLE[name][0], Entry(name, b"this is none" * 99)
    with pytest.raises(Unfit) as unfit:
        [converter.convert(part, CAPS) for part in converter.parts(entry, CAPS)]
    assert unfit.value.detail
    assert " at 0x" not in unfit.value.detail


@pytest.mark.parametrize("side", [200, 20_000])
def test_the_limit_that_is_told_is_the_recipes(side: int) -> None:
    """Not that of the library, which knows no recipe."""
    content = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    with pytest.raises(Unfit, match="more than 10,000") as unfit:
        IMAGES.convert(Entry("a.png", content + _chunk(b"IDAT", zlib.compress(b"")) + _chunk(b"IEND", b"")), CAPS)
    assert unfit.value.reason == "too_many_pixels"


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
