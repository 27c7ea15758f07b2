"""Corpora of the user's own files: what is chosen, in which order, in which split, and what is refused."""

import gzip
import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from data_pipeline.config import BadInput
from data_pipeline.sources import Corpus
from data_pipeline.sources.document import Report
from data_pipeline.sources.files import FilesConfig
from tests.data_pipeline.corpora import write_files


def files(place: Path, **fields: Any) -> FilesConfig:
    defaults = {"kind": "files", "directory": str(place), "train": ["*.txt"], "document": "file", "held_out": 0.0}
    return TypeAdapter(Corpus).validate_python(defaults | fields)


def texts(corpus: FilesConfig, split: str = "train") -> dict[str, str]:
    return {document.id: document.text for document in corpus.documents(split)}


def test_whole_files_in_the_order_of_their_paths(tmp_path: Path) -> None:
    write_files(tmp_path / "b", count=3)
    write_files(tmp_path / "a", count=2)
    found = texts(files(tmp_path, train=["b/*.txt", "a/file-001.txt", "**/*.txt"]))
    assert list(found) == [f"a/file-00{i}.txt" for i in (0, 1)] + [f"b/file-00{i}.txt" for i in (0, 1, 2)]
    for name, text in found.items():
        assert text == (tmp_path / name).read_bytes().decode()


def test_a_literal_name_may_look_like_a_pattern(tmp_path: Path) -> None:
    (tmp_path / "a[1].txt").write_text("text")
    assert list(texts(files(tmp_path, train=["a[1].txt"]))) == ["a[1].txt"]


def test_pieces_are_bounded_and_hold_every_document_once(tmp_path: Path) -> None:
    write_files(tmp_path, count=20)
    for unit in ("file", "line", "blank_line"):
        corpus = files(tmp_path, document=unit)
        whole = texts(corpus)
        for piece_bytes in (500, 3000, 1 << 30):
            pieces = corpus.pieces(piece_bytes)
            in_pieces = [document for piece in pieces for _, document in corpus.read(piece, Report())]
            assert {document.id: document.text for document in in_pieces} == whole
            assert len(in_pieces) == len(whole)
            assert all(len(piece.spans) == 1 or sum(s.size for s in piece.spans) <= piece_bytes for piece in pieces)


def test_bytes_are_those_of_the_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("naïve 東京\n", encoding="utf-8")
    (document,) = files(tmp_path).documents("train")
    assert document.num_bytes == len("naïve 東京\n".encode()) == 14


def test_the_hashed_split_is_a_fixed_share_that_does_not_depend_on_other_files(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n".join(f"line {number}" for number in range(3000)))
    corpus = files(tmp_path, document="line", held_out=0.1)
    train, valid = texts(corpus, "train"), texts(corpus, "valid")
    assert not train.keys() & valid.keys()
    assert len(train) + len(valid) == 3000
    assert 240 < len(valid) < 360
    (tmp_path / "0.txt").write_text("another")
    assert texts(corpus, "valid").items() >= valid.items()


def test_named_splits_are_what_they_name(tmp_path: Path) -> None:
    write_files(tmp_path, count=4)
    corpus = files(
        tmp_path, train=["file-000.txt", "file-001.txt"], valid=["file-002.txt"], test=["file-003.txt"], held_out=0.5
    )
    assert [list(texts(corpus, split)) for split in ("train", "valid", "test")] == [
        ["file-000.txt", "file-001.txt"],
        ["file-002.txt"],
        ["file-003.txt"],
    ]


@pytest.mark.parametrize(
    ("policy", "kept", "counted"),
    [
        ("skip", ["good"], {"invalid_utf8": 2, "empty": 2}),
        ("replace", ["good", "b\ufffdd", "\ufffd"], {"replaced_utf8": 2, "empty": 2}),
    ],
)
def test_what_is_not_utf8_is_handled_by_policy_and_counted(
    policy: str, kept: list[str], counted: dict[str, int], tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_bytes(b"good\nb\xffd\n\n \t\n\xed\xa0\x80"[:-2] + b"\n")
    corpus = files(tmp_path, document="line", invalid_utf8=policy)
    report = Report()
    (piece,) = corpus.pieces(1000)
    documents = [document for _, document in corpus.read(piece, report)]
    assert [document.text for document in documents] == kept
    assert [document.num_bytes for document in documents] == [len(text.encode()) for text in kept]
    assert report.counts == counted


def test_what_is_not_utf8_can_stop(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"good\nb\xffd\n")
    with pytest.raises(BadInput, match=r"a\.txt:5: not UTF-8 at byte 1.*corpus\.invalid_utf8"):
        texts(files(tmp_path, document="line", invalid_utf8="stop"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"directory": "/nowhere/at/all"}, r"corpus\.directory /nowhere/at/all: no such directory"),
        ({"train": ["*.md"]}, r"corpus\.train \*\.md: no such file in"),
        ({"train": ["/etc/*"]}, r"corpus\.train /etc/\*: must be relative"),
        ({"train": ["**.txt"]}, r"corpus\.train \*\*\.txt: is no glob .*write one such as \*\*/\*\.txt"),
        ({"train": ["../*"]}, r"corpus\.train \.\./\*: must be relative"),
        ({"valid": ["file-000.txt"]}, r"corpus\.valid: file-000\.txt is in corpus\.train too"),
        (
            {"held_out": 0.1},
            r"corpus\.held_out 0\.1: 9 whole-file documents are too few.*corpus\.document to blank_line",
        ),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_remedy(fields: dict[str, Any], message: str, tmp_path: Path) -> None:
    write_files(tmp_path, count=9)
    with pytest.raises(BadInput, match=message):
        files(tmp_path, **fields).pieces(1000)


def test_a_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    """It could not be written in ids."""
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.txt")).write_text("text")
    with pytest.raises(BadInput, match=r"the name 'caf\\udce9\.txt' in .* is not UTF-8; rename the file"):
        files(tmp_path).pieces(1000)


@pytest.mark.parametrize("fields", [{"train": []}, {"train": [""]}, {"held_out": 1.0}, {"trian": ["a"]}])
def test_values_out_of_range_are_refused(fields: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=next(iter(fields))):
        files(tmp_path, **fields)


def test_what_a_separator_parts(tmp_path: Path) -> None:
    text = "one\n<|end|>two\n\nstill two<|end|><|end|> \n<|end|>"
    (tmp_path / "a.txt").write_text(text)
    corpus = files(tmp_path, document="separator", separator="<|end|>")
    report = Report()
    documents = [one for piece in corpus.pieces(9) for _, one in corpus.read(piece, report)]
    assert [(one.id, one.text) for one in documents] == [("a.txt:0", "one\n"), ("a.txt:11", "two\n\nstill two")]
    assert [text[one.start : one.stop] for one in documents] == [one.text for one in documents]
    assert report.counts == {"empty": 2}
    assert len(corpus.pieces(9)) > 1
    assert len(files(tmp_path, document="separator", separator="\n\n").pieces(9)) == 1, "overlaps itself: cannot be cut"


@pytest.mark.parametrize("fields", [{"document": "separator"}, {"document": "line", "separator": "x"}])
def test_a_separator_goes_with_its_unit(fields: dict[str, Any], tmp_path: Path) -> None:
    message = "needs a separator, the text between" if len(fields) == 1 else "'x' is for document: separator, and"
    with pytest.raises(ValidationError, match=message):
        files(tmp_path, **fields)


def test_sources_and_byte_spans(tmp_path: Path) -> None:
    content = b"\xef\xbb\xbf" + "é one\r\ntwo\n\nthree é".encode()
    (tmp_path / "a.txt").write_bytes(content)
    for unit in ("file", "line", "blank_line"):
        documents = list(files(tmp_path, document=unit).documents("train"))
        assert [content[one.start : one.stop].decode() for one in documents] == [one.text for one in documents]
        assert {one.source for one in documents} == {"a.txt"}


def test_all_lines_of_a_compressed_file_are_read(tmp_path: Path) -> None:
    """More of them than the file has bytes."""
    lines = b"".join(b"%d\n" % (number % 10) for number in range(30_000))
    (tmp_path / "a.txt").write_bytes(gzip.compress(lines))
    (tmp_path / "a.txt").rename(tmp_path / "a.gz")
    corpus = files(tmp_path, train=["*.gz"], document="line")
    assert sum(1 for _ in corpus.documents("train")) == 30_000


def test_nul_and_byte_order_marks_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\ntw\0o\n\xef\xbb\xbfthree\n")
    for policy, second in (("keep", ["tw\0o"]), ("remove", ["two"]), ("skip", [])):
        report = Report()
        corpus = files(tmp_path, document="line", nul=policy)
        found = [one.text for piece in corpus.pieces(99) for _, one in corpus.read(piece, report)]
        assert found == ["one", *second, "\ufeffthree"]
        reason = {"keep": "kept_nul", "remove": "removed_nul", "skip": "nul"}[policy]
        assert report.counts == {"removed_byte_order_mark": 1, reason: 1}
    with pytest.raises(BadInput, match=r"a\.txt:7: holds NUL.*corpus\.nul"):
        texts(files(tmp_path, document="line", nul="stop"))


@pytest.mark.parametrize("name", ["a.gz", "a.zst"])
def test_a_damaged_file_stops_or_is_counted(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"neither gzip nor Zstandard")
    (tmp_path / "b.txt").write_bytes(b"text\n")
    with pytest.raises(BadInput, match=rf"{name}: cannot be read .*repair the file.*corpus\.damaged_file to skip"):
        texts(files(tmp_path, train=["*"], document="line"))
    report = Report()
    corpus = files(tmp_path, train=["*"], document="line", damaged_file="skip")
    assert [one.text for piece in corpus.pieces(9) for _, one in corpus.read(piece, report)] == ["text"]
    assert report.counts == {"damaged_file": 1}
