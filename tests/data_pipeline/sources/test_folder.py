"""Corpora at addresses: the same documents under the same ids as on this machine, and no secret in what is shown."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from data_pipeline.config import BadInput
from data_pipeline.sources.document import CorpusConfig
from tests.data_pipeline.corpora import write_files
from tests.data_pipeline.sources.reading import corpus_of, read


@pytest.fixture
def memory() -> Iterator[Any]:
    files = fsspec.filesystem("memory")
    yield files
    files.rm("/", recursive=True)


def everything(corpus: CorpusConfig) -> tuple[object, ...]:
    return corpus.pieces(700), *read(corpus, 700)


@pytest.mark.parametrize("unit", ["file", "line", "blank_line"])
def test_an_address_holds_what_a_folder_holds(unit: str, memory: Any, tmp_path: Path) -> None:
    write_files(tmp_path / "a", count=6, words=80)
    write_files(tmp_path / "a" / "b", count=3, words=80)
    memory.put(f"{tmp_path}/a", "/corpus", recursive=True)
    for pattern in ("**/*.txt", "b/*.txt", "file-00[1-3].txt", "b/file-001.txt"):
        here = everything(corpus_of("files", tmp_path / "a", pattern, document=unit))
        assert len(here[1]) > 0
        for address in ("memory://corpus", "memory:///corpus/", f"file://{tmp_path}/a"):
            assert everything(corpus_of("files", address, pattern, document=unit)) == here


def test_compressed_files_at_an_address(memory: Any, tmp_path: Path) -> None:
    import gzip

    import zstandard

    lines = b"".join(b"line %d\n" % number for number in range(3000))
    memory.pipe("/corpus/a.gz", gzip.compress(lines))
    memory.pipe("/corpus/b.zst", zstandard.compress(lines))
    documents, _ = read(corpus_of("files", "memory://corpus", document="line"), 100)
    assert [one.text for one in documents] == [f"line {number}" for number in range(3000)] * 2


def test_where_a_corpus_lies_does_not_depend_on_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert corpus_of("files", "texts", document="file").located().model_dump()["directory"] == str(tmp_path / "texts")
    assert corpus_of("files", "s3://b/texts", document="file").located().model_dump()["directory"] == "s3://b/texts"


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("nothing://me:hunter22@host/x", r"corpus\.directory nothing://<redacted>@host/x: Protocol not known: nothing"),
        ("memory://nowhere", r"corpus\.train \*: no such file in memory://nowhere"),
        (
            "http://me:hunter22@127.0.0.1:9/x",
            r"corpus\.directory http://<redacted>@127\.0\.0\.1:9/x: cannot be reached",
        ),
    ],
)
def test_an_address_of_no_use_is_named_without_its_secrets(address: str, message: str) -> None:
    with pytest.raises(BadInput, match=message) as raised:
        corpus_of("files", address, document="line").pieces(1000)
    shown = f"{raised.value} {raised.value.__cause__}"
    assert "hunter22" not in shown


def test_a_file_that_is_gone_is_named(memory: Any) -> None:
    memory.pipe("/corpus/a.txt", b"text\n")
    corpus = corpus_of("files", "memory://corpus", document="line", damaged_file="skip")
    pieces = corpus.pieces(1000)
    memory.rm("/corpus/a.txt")
    with pytest.raises(BadInput, match=r"memory://corpus/a\.txt: cannot be reached"):
        read_pieces(corpus, pieces)


def read_pieces(corpus: CorpusConfig, pieces: list[Any]) -> None:
    from data_pipeline.sources.document import Report

    for piece in pieces:
        list(corpus.read(piece, Report()))
