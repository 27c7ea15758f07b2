"""Compressed files: what is damaged is noticed, what expands too far is cut off."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import zstandard

from data_pipeline.archives.decompression import DAMAGE, ExpandsTooFar
from data_pipeline.sources.folder import folder_at
from data_pipeline.sources.opening import byte_spans, opened, range_of


def content(path: Path) -> bytes:
    with opened(folder_at(str(path.parent)), path.name) as stream:
        return stream.read()


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_what_expands_too_far_is_cut_off(suffix: str, tmp_path: Path) -> None:
    data = b"a line of text\n" * 1_000_000
    path = tmp_path / f"bomb{suffix}"
    path.write_bytes(gzip.compress(data, 9) if suffix == ".gz" else zstandard.compress(data, 19))
    allowed = 200 * path.stat().st_size + (1 << 20)
    assert len(data) > allowed + (1 << 20), "not extreme enough to show anything"
    given = 0
    try:
        with opened(folder_at(str(tmp_path)), path.name) as stream:
            while part := stream.read(1000):
                given += len(part)
    except ExpandsTooFar:
        assert 0 < given <= allowed
    else:
        pytest.fail("was not cut off")


@pytest.mark.parametrize("name", ["cut.gz", "cut.zst", "wrong.gz", "wrong.zst", "rest.gz"])
def test_damage_is_noticed(name: str, tmp_path: Path) -> None:
    data = np.random.default_rng(0).integers(0, 255, 100_000, dtype=np.uint8).tobytes()
    path = tmp_path / name
    whole = gzip.compress(data) if name.endswith("gz") else zstandard.compress(data)
    path.write_bytes({"cut": whole[: len(whole) // 2], "wrong": data, "rest": whole + b"rest"}[path.stem])
    with pytest.raises(DAMAGE):
        content(path)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_flipped_bit_is_noticed(suffix: str, tmp_path: Path) -> None:
    data = b"".join(b"line %d\n" % number for number in range(5000))
    compress = gzip.compress if suffix == ".gz" else zstandard.ZstdCompressor(write_checksum=True).compress
    whole = bytearray(compress(data))
    whole[len(whole) // 2] ^= 1
    (tmp_path / f"a{suffix}").write_bytes(whole)
    with pytest.raises(DAMAGE):
        content(tmp_path / f"a{suffix}")


def test_a_missing_file_is_no_damage(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as raised:
        content(tmp_path / "missing.txt")
    assert not isinstance(raised.value, DAMAGE)


def test_a_zstandard_file_cut_anywhere_is_noticed(tmp_path: Path) -> None:
    data = np.random.default_rng(1).choice(list(b"abc \n"), 6000).astype(np.uint8).tobytes()
    checked = zstandard.ZstdCompressor(write_checksum=True).compress(data)
    run = zstandard.compress(b"\0" * 500_000)
    skippable = (0x184D2A53).to_bytes(4, "little") + (7).to_bytes(4, "little") + b"1234567"
    whole = checked + skippable + run + zstandard.compress(data)
    ends = {len(checked), len(checked + skippable), len(checked + skippable + run), len(whole)}
    path = tmp_path / "a.zst"
    for length in [*range(1, len(whole), 31), *(end + near for end in ends for near in (-4, -1, 0, 1))]:
        path.write_bytes(whole[:length])
        try:
            found = content(path)
        except DAMAGE:
            assert length not in ends
        else:
            assert length in ends or length > len(whole)
            assert found.startswith(data)


def test_what_is_compressed_is_one_range_without_an_end() -> None:
    assert [(span.start, span.stop) for span in byte_spans("a.txt", 10, 4)] == [(0, 4), (4, 8), (8, 10)]
    (span,) = byte_spans("a.gz", 10, 4)
    assert range_of(span).stop > 1 << 40
