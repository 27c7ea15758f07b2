"""Reading files in ranges: every document once, whatever the ranges, the unit and the compression."""

import gzip
import re
from pathlib import Path

import numpy as np
import pytest
import zstandard

from data_pipeline.config import BadInput
from data_pipeline.sources.bytes_of_files import DocumentUnit, documents_in
from data_pipeline.sources.document import Report


def lines_of(data: bytes) -> list[tuple[int, bytes]]:
    """The specification of `line`: (offset, content) of each."""
    found = [(match.start(), match.group()) for match in re.finditer(rb"[^\n]*\n|[^\n]+$", data)]
    return [(start, re.sub(rb"\r?\n$", b"", line)) for start, line in found]


def paragraphs_of(data: bytes) -> list[tuple[int, bytes]]:
    """The specification of `blank_line`: runs of lines that are not blank."""
    found: list[tuple[int, bytes]] = []
    goes_on = False
    for match in re.finditer(rb"[^\n]*\n|[^\n]+$", data):
        line = match.group()
        if not line.strip():
            goes_on = False
        elif goes_on:
            found[-1] = (found[-1][0], found[-1][1] + line)
        else:
            found.append((match.start(), line))
            goes_on = True
    return [(start, re.sub(rb"\r?\n$", b"", paragraph)) for start, paragraph in found]


def read(path: Path, unit: DocumentUnit, *, step: int | None = None, max_bytes: int = 1000) -> list[tuple[int, bytes]]:
    size = path.stat().st_size
    ranges = [(0, size)] if step is None else [(start, min(start + step, size)) for start in range(0, size, step)]
    found = [documents_in(path, *one, unit=unit, max_bytes=max_bytes, report=Report()) for one in ranges]
    return [(document.offset, document.data) for documents in found for document in documents]


def random_text(seed: int) -> bytes:
    random = np.random.default_rng(seed)
    parts = [b"a", b"bc", b" ", b"\n", b"\n", b"\r\n", b"\n\n", b"\t", b"word"]
    return b"".join(parts[int(i)] for i in random.integers(0, len(parts), int(random.integers(0, 60))))


@pytest.mark.parametrize("seed", range(30))
def test_ranges_of_any_size_give_every_document_once(seed: int, tmp_path: Path) -> None:
    data = random_text(seed)
    path = tmp_path / "text"
    path.write_bytes(data)
    for step in (None, 1, 2, 3, 5, 7, 16):
        assert read(path, "line", step=step) == lines_of(data)
        assert read(path, "blank_line", step=step) == paragraphs_of(data)


@pytest.mark.parametrize("unit", ["file", "line", "blank_line"])
def test_compressed_files_hold_the_same_documents(unit: DocumentUnit, tmp_path: Path) -> None:
    data = b"\n".join(random_text(seed) for seed in range(20))
    half = len(data) // 2
    (tmp_path / "plain").write_bytes(data)
    (tmp_path / "one.gz").write_bytes(gzip.compress(data[:half]) + gzip.compress(data[half:]))
    frames = [zstandard.compress(part) for part in (data[:half], data[half:])]
    (tmp_path / "one.zst").write_bytes(b"".join(frames))
    expected = read(tmp_path / "plain", unit, max_bytes=10_000)
    assert len(expected) > 5 or unit == "file"
    for name in ("one.gz", "one.zst"):
        found = documents_in(tmp_path / name, 0, 1 << 30, unit=unit, max_bytes=10_000, report=Report())
        assert [(one.offset, one.data) for one in found] == expected


@pytest.mark.parametrize("unit", ["file", "line", "blank_line"])
def test_too_long_documents_are_counted_and_the_others_kept(unit: DocumentUnit, tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes(b"short\n\n" + b"x" * 40 + b"\n" + b"y" * 3_000_000 + b"\n\nlast\n")
    report = Report()
    found = [one.data for one in documents_in(path, 0, 1 << 30, unit=unit, max_bytes=100, report=report)]
    kept = {"file": [], "line": [b"short", b"", b"x" * 40, b"", b"last"], "blank_line": [b"short", b"last"]}
    assert found == kept[unit]
    assert report.counts == {"too_long": 1}


@pytest.mark.parametrize(("length", "kept"), [(100, True), (101, False)])
@pytest.mark.parametrize("unit", ["line", "blank_line"])
@pytest.mark.parametrize("end", [b"", b"\n"])
def test_the_longest_document_is_exactly_as_long_as_allowed(
    length: int, kept: bool, unit: DocumentUnit, end: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "text"
    path.write_bytes(b"z" * length + end)
    assert bool(read(path, unit, max_bytes=100)) == kept


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_file_that_expands_too_far_is_cut_off_and_counted(suffix: str, tmp_path: Path) -> None:
    data = b"a line of text\n" * 1_000_000
    path = tmp_path / f"bomb{suffix}"
    path.write_bytes(gzip.compress(data, 9) if suffix == ".gz" else zstandard.compress(data, 19))
    assert len(data) > 210 * path.stat().st_size + (1 << 20), "not extreme enough to show anything"
    report = Report()
    found = sum(1 for _ in documents_in(path, 0, 1 << 30, unit="line", max_bytes=100, report=report))
    assert report.counts == {"expands_too_far": 1}
    assert 0 < found < 1_000_000


@pytest.mark.parametrize("name", ["cut.gz", "cut.zst", "wrong.gz", "wrong.zst", "missing.txt"])
def test_damaged_files_are_named(name: str, tmp_path: Path) -> None:
    data = np.random.default_rng(0).integers(0, 255, 100_000, dtype=np.uint8).tobytes()
    path = tmp_path / name
    if name.startswith("cut"):
        whole = gzip.compress(data) if name.endswith("gz") else zstandard.compress(data)
        path.write_bytes(whole[: len(whole) // 2])
    elif name.startswith("wrong"):
        path.write_bytes(data)
    with pytest.raises(BadInput, match=rf"{name}: cannot be read .*repair the file"):
        list(documents_in(path, 0, 1, unit="line", max_bytes=1 << 20, report=Report()))


def test_a_zstandard_file_cut_anywhere_is_noticed(tmp_path: Path) -> None:
    data = b"".join(random_text(seed) for seed in range(300))
    checked = zstandard.ZstdCompressor(write_checksum=True).compress(data)
    run = zstandard.compress(b"\0" * 500_000)
    skippable = (0x184D2A53).to_bytes(4, "little") + (7).to_bytes(4, "little") + b"1234567"
    whole = checked + skippable + run + zstandard.compress(data)
    ends = {len(checked), len(checked + skippable), len(checked + skippable + run), len(whole)}
    path = tmp_path / "a.zst"
    for length in [*range(1, len(whole), 31), *(end + near for end in ends for near in (-4, -1, 0, 1))]:
        path.write_bytes(whole[:length])
        try:
            found = list(documents_in(path, 0, 1, unit="file", max_bytes=1 << 24, report=Report()))
        except BadInput:
            assert length not in ends
        else:
            assert length in ends or length > len(whole)
            assert found[0].data.startswith(data)
