"""Giant documents are found, cut for several workers, and are still themselves when put together."""

import io
import re
from pathlib import Path

import numpy as np
import pytest

from data_pipeline.config import BadInput
from data_pipeline.sources.byte_ranges import DocumentUnit, Range, documents_in
from data_pipeline.sources.decoding import TextPolicy
from data_pipeline.sources.document import Document, Report
from data_pipeline.sources.files import FilesConfig
from data_pipeline.sources.folder import LocalFolder
from data_pipeline.sources.giants import END_OF_LINE, END_OF_PARAGRAPH, GIANT, giants_in, parts_of, spans_with_giants

WORDS = ["a", "the", "東京", "naïve", "x.y", "\u3000", "", "", "\t", "\U0001f600"]
MOST = 1 << 40


def text_of_size(size: int, seed: int) -> str:
    random = np.random.default_rng(seed)
    words = " ".join(WORDS[int(place)] + str(place) for place in random.integers(0, len(WORDS), 4000))
    return (words * (1 + size // len(words.encode())))[:size]


def all_of(
    folder: LocalFolder, name: str, unit: DocumentUnit, end: re.Pattern[bytes] | None, *, giant: int, piece_bytes: int
) -> tuple[list[str], list[Document]]:
    """Every document of the file, with giants put together from their parts; and the parts."""
    size = (folder.base / name).stat().st_size
    giants = giants_in(folder, name, size, end, giant=giant)
    texts: list[str] = []
    parts: list[Document] = []
    report = Report()
    for span in spans_with_giants(folder, name, size, piece_bytes, giants, MOST):
        if span.document is None:
            with folder.open(name) as stream:
                place = Range(span.start, span.stop)
                found = documents_in(stream, place, unit=unit, max_bytes=1 << 30, report=report)
                texts += [one.data.decode() for one in found]
            continue
        for part in parts_of(folder, span, MOST, TextPolicy(), report):
            if part.continues:
                texts[-1] += part.text
            else:
                texts.append(part.text)
            parts.append(part)
    assert not report.counts
    return texts, parts


@pytest.mark.parametrize("piece_bytes", [9_999, 1 << 23])
@pytest.mark.parametrize(("unit", "end"), [("line", END_OF_LINE), ("blank_line", END_OF_PARAGRAPH)])
@pytest.mark.parametrize("giant", [50_000, 1_500_000])
def test_each_document_comes_once_and_whole(
    giant: int, unit: DocumentUnit, end: re.Pattern[bytes], piece_bytes: int, tmp_path: Path
) -> None:
    sizes = [10, giant // 3, 1, 3 * giant, 5, 2 * giant, giant - 7, giant + 9, 40]
    expected = [text_of_size(size, seed) + "." for seed, size in enumerate(sizes)]
    (tmp_path / "a.txt").write_bytes(("\n" if unit == "line" else "\r\n \t\n\n").join(expected).encode() + b"\n")
    texts, parts = all_of(LocalFolder(tmp_path), "a.txt", unit, end, giant=giant, piece_bytes=piece_bytes)
    assert texts == expected
    assert sum(not part.continues for part in parts) == sum(len(text.encode()) > giant for text in expected)
    assert sum(not part.more for part in parts) == sum(not part.continues for part in parts)
    assert all(re.match(r"[ \t\r\n]\S", part.text) for part in parts if part.continues)
    assert len({part.id for part in parts}) == len(parts)


@pytest.mark.parametrize("ending", [b"", b"\n", b"\r\n"])
@pytest.mark.parametrize("offset", [-2, -1, 0, 1, 2])
def test_ends_of_documents_at_the_edge_of_a_window(offset: int, ending: bytes, tmp_path: Path) -> None:
    giant, window = 50_000, 25_000
    first = b"x " * (window + offset // 2) + b"y" * (offset % 2)
    (tmp_path / "a.txt").write_bytes(first + b"\n" + b"z " * giant + ending)
    texts, _ = all_of(LocalFolder(tmp_path), "a.txt", "line", END_OF_LINE, giant=giant, piece_bytes=9_999)
    assert texts == [first.decode(), "z " * giant]


@pytest.mark.parametrize("before", [b"", b"\n", b" \t\n\r\n", b"one\n\n"])
@pytest.mark.parametrize("after", [b"", b"\n", b"\r\n \n", b"\n  ", b"\n\nlast\n"])
def test_a_giant_paragraph_at_the_edges_of_a_file_is_what_a_small_one_is(
    before: bytes, after: bytes, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_bytes(before + b"word " * 20_000 + b"end" + after)
    found = documents_in(
        io.BytesIO((tmp_path / "a.txt").read_bytes()),
        Range(0, MOST),
        unit="blank_line",
        max_bytes=MOST,
        report=Report(),
    )
    expected = [part.data.decode() for part in found if part.data]
    texts, parts = all_of(
        LocalFolder(tmp_path), "a.txt", "blank_line", END_OF_PARAGRAPH, giant=50_000, piece_bytes=9_999
    )
    assert texts == expected
    assert len(parts) > 5


def test_text_without_white_space_is_cut_between_characters(tmp_path: Path) -> None:
    text = "東京" * 1_000_000
    (tmp_path / "a.txt").write_text(text)
    texts, parts = all_of(LocalFolder(tmp_path), "a.txt", "file", None, giant=1000, piece_bytes=1_000_001)
    assert texts == [text]
    assert len(parts) > 5


def giant_line(directory: Path, bad: bytes = b"") -> int:
    """A line longer than a giant between two short ones; its length."""
    line = b"some words " * (GIANT // 11 + 1000)
    line = line[:100] + bad + line[100 + len(bad) : -1]
    (directory / "a.txt").write_bytes(b"first\n" + line + b"\nlast\n")
    return len(line)


def corpus(directory: Path, **fields: object) -> FilesConfig:
    given = {"kind": "files", "directory": str(directory), "train": ["*.txt"], "document": "line", **fields}
    return FilesConfig.model_validate(given)


class Counting(io.BufferedReader):
    """A file that knows how much was asked for."""

    given = 0

    def read(self, size: int | None = -1, /) -> bytes:
        return self._counted(super().read(size))

    def readline(self, size: int | None = -1, /) -> bytes:
        return self._counted(super().readline(size))

    def _counted(self, data: bytes) -> bytes:
        self.given += len(data)
        return data


@pytest.mark.parametrize(
    ("unit", "end"), [("line", "\n"), ("blank_line", "\n\n"), ("separator", "<end>")], ids=["line", "blank_line", "sep"]
)
def test_nothing_is_held_of_a_giant_that_begins_after_the_range(unit: DocumentUnit, end: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("first" + end + "words " * 2_000_000)
    pattern = re.compile(end.encode())
    size = (tmp_path / "a.txt").stat().st_size
    (giant,) = giants_in(LocalFolder(tmp_path), "a.txt", size, pattern, giant=1 << 21)
    with Counting(io.FileIO(tmp_path / "a.txt")) as stream:
        place = Range(0, giant.others_stop)
        separator = end.encode() if unit == "separator" else b""
        found = documents_in(stream, place, unit=unit, max_bytes=1 << 30, report=Report(), separator=separator)
        assert [part.data for part in found] == [b"first"]
        assert stream.given <= 1 << 20


def test_all_parts_of_a_document_are_in_its_split(tmp_path: Path) -> None:
    length = giant_line(tmp_path)
    config, report = corpus(tmp_path, held_out=0.5), Report()
    found = [each for piece in config.pieces(1 << 23) for each in config.read(piece, report)]
    parts = [(split, part) for split, part in found if part.continues or part.more]
    assert len({split for split, _ in parts}) == 1
    assert sum(part.num_bytes for _, part in parts) == length
    assert [document.text for _, document in found if document not in [part for _, part in parts]] == ["first", "last"]
    assert len(config.pieces(1 << 23)) == 6
    assert not report.counts


def test_what_is_wrong_in_a_giant_is_replaced_or_stops(tmp_path: Path) -> None:
    length = giant_line(tmp_path, b"\xff\0")
    for policy, nul, expected in (("skip", "skip", length + 1), ("replace", "keep", length + 2)):
        config, report = corpus(tmp_path, invalid_utf8=policy, nul=nul, held_out=0), Report()
        found = [document for piece in config.pieces(1 << 23) for _, document in config.read(piece, report)]
        assert sum(document.num_bytes for document in found) == expected + len("firstlast")
        assert report.counts == {"replaced_utf8": 1, "removed_nul" if nul == "skip" else "kept_nul": 1}
    config = corpus(tmp_path, invalid_utf8="stop")
    with pytest.raises(BadInput, match=r"a\.txt:6: not UTF-8"):
        list(config.read(config.pieces(1 << 23)[1], Report()))


def test_a_giant_that_is_too_long_is_left_out_and_counted(tmp_path: Path) -> None:
    length = giant_line(tmp_path)
    config, report = corpus(tmp_path, max_document_bytes=length - 1, held_out=0), Report()
    found = [document.text for piece in config.pieces(1 << 20) for _, document in config.read(piece, report)]
    assert found == ["first", "last"]
    assert report.counts == {"too_long": 1}
