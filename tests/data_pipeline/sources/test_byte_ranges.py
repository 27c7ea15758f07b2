"""Reading files in ranges: every document once, whatever the ranges, the unit and the compression."""

import gzip
import io
import re
import tracemalloc
from codecs import BOM_UTF8
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.sources.byte_ranges import STEP, DocumentUnit, Part, Range, documents_in, overlaps_itself
from data_pipeline.sources.document import Report
from data_pipeline.sources.folder import folder_at
from data_pipeline.sources.opening import opened


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


def documents(
    path: Path, place: Range, report: Report, *, unit: DocumentUnit, max_bytes: int, separator: bytes = b""
) -> Iterator[Part]:
    with opened(folder_at(str(path.parent)), path.name) as stream:
        yield from documents_in(stream, place, unit=unit, max_bytes=max_bytes, report=report, separator=separator)


def read(
    path: Path, unit: DocumentUnit, *, step: int | None = None, max_bytes: int = 1000, separator: bytes = b""
) -> list[tuple[int, bytes]]:
    size = path.stat().st_size
    ranges = [(0, size)] if step is None else [(start, min(start + step, size)) for start in range(0, size, step)]
    found = [
        documents(path, Range(*one), Report(), unit=unit, max_bytes=max_bytes, separator=separator) for one in ranges
    ]
    return [(document.offset, document.data) for documents in found for document in documents]


def random_text(seed: int) -> bytes:
    random = np.random.default_rng(seed)
    parts = [b"a", b"bc", b" ", b"\n", b"\n", b"\r\n", b"\n\n", b"\t", b"word", b"\r"]
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
        found = documents(tmp_path / name, Range(0, 1 << 30), Report(), unit=unit, max_bytes=10_000)
        assert [(one.offset, one.data) for one in found] == expected


@pytest.mark.parametrize("unit", ["file", "line", "blank_line"])
def test_too_long_documents_are_counted_and_the_others_kept(unit: DocumentUnit, tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes(b"short\n\n" + b"x" * 40 + b"\n" + b"y" * 3_000_000 + b"\n\nlast\n")
    report = Report()
    found = [one.data for one in documents(path, Range(0, 1 << 30), report, unit=unit, max_bytes=100)]
    kept: dict[DocumentUnit, list[bytes]] = {
        "file": [],
        "line": [b"short", b"", b"x" * 40, b"", b"last"],
        "blank_line": [b"short", b"last"],
    }
    assert found == kept[unit]
    assert report.counts == {"too_long": 1}


@pytest.mark.parametrize(("length", "kept"), [(100, True), (101, False)])
@pytest.mark.parametrize("unit", ["line", "blank_line"])
@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
@pytest.mark.parametrize("mark", [b"", BOM_UTF8])
def test_the_longest_document_is_exactly_as_long_as_allowed(
    length: int, kept: bool, unit: DocumentUnit, end: bytes, mark: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "text"
    path.write_bytes(mark + b"z" * length + end)
    assert bool(read(path, unit, max_bytes=100)) == kept


def parts_of(data: bytes, separator: bytes) -> list[tuple[int, bytes]]:
    """The specification of `separator`; nothing stands after one that ends the file."""
    parts = data.split(separator)
    starts = np.cumsum([0, *(len(part) + len(separator) for part in parts)]).tolist()
    return [(start, part) for start, part in zip(starts, parts, strict=False) if start < len(data)]


@settings(max_examples=150, deadline=None)
@given(
    words=st.lists(st.sampled_from([b"a", b"<", b">", b"<|>", b"\n", b"|", b"<|", b"\n\n", b" "]), max_size=40),
    step=st.integers(1, 12),
)
def test_ranges_of_any_size_give_what_is_between_separators_once(words: list[bytes], step: int) -> None:
    data, separator = b"".join(words), b"<|>"
    ranges = [Range(start, min(start + step, len(data))) for start in range(0, len(data), step)]
    found = [
        (part.offset, part.data)
        for place in ranges
        for part in documents_in(
            io.BufferedReader(io.BytesIO(data)), place, unit="separator", max_bytes=99, report=Report(),
            separator=separator,
        )
    ]  # fmt: skip
    assert found == parts_of(data, separator)


@pytest.mark.parametrize("separator", [b"\n\n\n", b"aa"])
def test_a_separator_that_overlaps_itself_is_found_from_the_beginning(separator: bytes, tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"b" + separator + separator[:1] + b"c" + separator * 2)
    expected = parts_of((tmp_path / "text").read_bytes(), separator)
    assert read(tmp_path / "text", "separator", separator=separator) == expected
    assert overlaps_itself(separator)


def test_separators_across_the_bytes_read_at_a_time(tmp_path: Path) -> None:
    separator, path = b"<|endoftext|>", tmp_path / "text"
    for near in range(-len(separator) - 1, 2):
        path.write_bytes(b"x" * (STEP + near) + separator + b"after")
        found = read(path, "separator", separator=separator, max_bytes=2 * STEP)
        assert [(offset, len(data)) for offset, data in found] == [(0, STEP + near), (STEP + near + len(separator), 5)]
        assert read(path, "separator", separator=separator, max_bytes=9) == found[1:]


@pytest.mark.parametrize("unit", ["file", "line", "blank_line", "separator"])
def test_a_byte_order_mark_at_the_beginning_is_no_text(unit: DocumentUnit, tmp_path: Path) -> None:
    path, mark = tmp_path / "text", b"\xef\xbb\xbf"
    path.write_bytes(mark + b"first" + mark + b" and\n\n" + mark + b"second")
    report = Report()
    found = list(documents(path, Range(0, 99), report, unit=unit, max_bytes=99, separator=b"\n\n"))
    assert found[0].offset == 3
    assert found[0].data.startswith(b"first" + mark + b" and")
    assert unit == "file" or found[-1].data == mark + b"second"
    assert report.counts == {"removed_byte_order_mark": 1}
    whole = b"".join(data for _, data in read(path, unit, step=1, separator=b"\n\n"))
    assert unit == "file" or whole == b"".join(part.data for part in found)


@pytest.mark.parametrize("unit", ["file", "line", "blank_line", "separator"])
def test_a_document_too_long_to_keep_is_passed_over_in_bounded_memory(unit: DocumentUnit, tmp_path: Path) -> None:
    path = tmp_path / "text"
    with path.open("wb") as file:
        for _ in range(64):
            file.write(b"x" * STEP)
        file.write(b"\n\nlast")
    report = Report()
    tracemalloc.start()
    found = list(documents(path, Range(0, 1 << 40), report, unit=unit, max_bytes=STEP, separator=b"\n\n"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [part.data for part in found if part.data] == ([] if unit == "file" else [b"last"])
    assert report.counts["too_long"] == 1
    assert peak < 6 * STEP
