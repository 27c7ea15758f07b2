"""What holds for corpora of every kind: any contents in pieces of any size are the same documents, each once."""

import gzip
import io
import json
import pickle
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from warcio.warcwriter import WARCWriter

from data_pipeline.config import BadInput
from data_pipeline.prepare import LocalExecutor, prepare
from data_pipeline.sources.document import CorpusConfig, Report
from tests.data_pipeline.corpora import text_config
from tests.data_pipeline.sources.reading import corpus_of

Writer = Callable[[list[str]], bytes]


def jsonl(texts: list[str]) -> bytes:
    return "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()


def rows(texts: list[str]) -> bytes:
    buffer = io.BytesIO()
    parquet.write_table(pa.table({"text": pa.array(texts, pa.string())}), buffer, row_group_size=2)
    return buffer.getvalue()


def batches(texts: list[str]) -> bytes:
    buffer, table = io.BytesIO(), pa.table({"text": pa.array(texts, pa.string())})
    with pa.ipc.new_file(buffer, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    return buffer.getvalue()


def members(texts: list[str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for number, text in enumerate(texts):
            header = tarfile.TarInfo(f"{number}.txt")
            header.size = len(text.encode())
            archive.addfile(header, io.BytesIO(text.encode()))
    return buffer.getvalue()


def conversions(texts: list[str]) -> bytes:
    buffer = io.BytesIO()
    writer = WARCWriter(buffer, gzip=False)
    for number, text in enumerate(texts):
        headers = {"WARC-Record-ID": f"<{number}-{len(texts)}>", "Content-Type": "text/plain"}
        content = io.BytesIO(text.encode())
        writer.write_record(writer.create_warc_record("http://a", "conversion", content, warc_headers_dict=headers))
    return buffer.getvalue()


def plain(texts: list[str]) -> bytes:
    return "\n\n".join(texts).encode()


KINDS: dict[str, tuple[Writer, dict[str, Any]]] = {
    "whole": (plain, {"kind": "files", "document": "file"}),
    "line": (plain, {"kind": "files", "document": "line"}),
    "blank_line": (plain, {"kind": "files", "document": "blank_line"}),
    "separator": (plain, {"kind": "files", "document": "separator", "separator": "<|>"}),
    "overlapping separator": (plain, {"kind": "files", "document": "separator", "separator": "\n\n"}),
    "jsonl": (jsonl, {"kind": "jsonl"}),
    "parquet": (rows, {"kind": "parquet"}),
    "arrow": (batches, {"kind": "parquet"}),
    "webdataset": (members, {"kind": "webdataset"}),
    "warc": (conversions, {"kind": "warc"}),
}
EXACT = ("jsonl", "parquet", "arrow", "webdataset", "warc")
"""Kinds whose documents are the texts that were written, whatever is in them."""

TEXT = st.text(
    st.one_of(st.sampled_from("a<|>\n\r \0é😀\ufeff"), st.characters(exclude_categories=["Cs"])), max_size=30
)


def everything(corpus: CorpusConfig, piece_bytes: int) -> tuple[list[Any], dict[str, int]]:
    report = Report()
    found = [one for piece in corpus.pieces(piece_bytes) for one in corpus.read(piece, report)]
    return found, dict(report.counts)


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=30, deadline=None)
@given(files=st.lists(st.lists(TEXT, max_size=8), min_size=1, max_size=3), piece_bytes=st.integers(1, 120))
def test_pieces_of_any_size_give_each_document_once(name: str, files: list[list[str]], piece_bytes: int) -> None:
    write, fields = KINDS[name]
    with tempfile.TemporaryDirectory() as folder:
        for number, texts in enumerate(files):
            Path(folder, f"{number}").write_bytes(write(texts))
        corpus = corpus_of(place=folder, held_out=0.0 if name == "whole" else 0.3, **fields)
        whole = everything(corpus, 1 << 40)
        assert everything(corpus, piece_bytes) == whole
    ids = [document.id for _, document in whole[0]]
    assert len(set(ids)) == len(ids) or name == "warc"  # whose ids are those that the records bring along
    if name in EXACT:
        written = [text for texts in files for text in texts if text and not text.isspace()]
        marks = name in ("webdataset", "warc")
        expected = [text.removeprefix("\ufeff") if marks else text for text in written]
        assert [document.text for _, document in whole[0]] == [text for text in expected if text.strip()]
    assert all(document.num_bytes == len(document.text.encode()) for _, document in whole[0])


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}
CUT = [name for name in KINDS if name not in ("parquet", "arrow")]


@pytest.mark.parametrize("suffix", COMPRESSIONS)
@pytest.mark.parametrize("name", CUT)
def test_compression_changes_no_document(name: str, suffix: str, tmp_path: Path) -> None:
    write, fields = KINDS[name]
    data = write([f"text {number} " * 5 for number in range(100)])
    (tmp_path / "a").write_bytes(data)
    (tmp_path / f"b{suffix}").write_bytes(COMPRESSIONS[suffix](data))
    first, second = (everything(corpus_of(place=tmp_path, pattern=one, **fields), 100)[0] for one in ("a", "b*"))
    assert [(document.text, document.start, document.stop) for _, document in first] == [
        (document.text, document.start, document.stop) for _, document in second
    ]
    assert first


@pytest.mark.parametrize("name", KINDS)
def test_a_file_of_no_bytes_is_counted(name: str, tmp_path: Path) -> None:
    write, fields = KINDS[name]
    (tmp_path / "a").write_bytes(b"")
    (tmp_path / "b").write_bytes(write(["text"]))
    found, counts = everything(corpus_of(place=tmp_path, **fields), 100)
    assert [document.text for _, document in found] == ["text"]
    assert counts == {"empty" if name == "whole" else "empty_file": 1}


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("name", CUT)
def test_a_file_cut_off_stops_or_is_counted(name: str, suffix: str, tmp_path: Path) -> None:
    write, fields = KINDS[name]
    whole = COMPRESSIONS[suffix](write([f"text {number * 7919 % 1009}" for number in range(3000)]))
    (tmp_path / f"a{suffix}").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "b").write_bytes(write(["text"]))
    with pytest.raises(BadInput, match=rf"a{suffix}: cannot be read .*corpus\.damaged_file to skip"):
        everything(corpus_of(place=tmp_path, **fields), 100)
    found, counts = everything(corpus_of(place=tmp_path, damaged_file="skip", **fields), 100)
    assert found[-1][1].text == "text"
    assert counts["damaged_file"] == 1


@pytest.mark.parametrize("name", KINDS)
def test_new_fields_leave_the_record_of_what_was_prepared_as_it_was(name: str, tmp_path: Path) -> None:
    corpus = corpus_of(place=tmp_path, **KINDS[name][1])
    assert not {"nul", "damaged_file"} & corpus.model_dump().keys()
    assert ("separator" in corpus.model_dump()) == ("separator" in name)
    changed = corpus.model_copy(update={"nul": "skip", "damaged_file": "skip"}).model_dump()
    assert (changed["nul"], changed["damaged_file"]) == ("skip", "skip")


@pytest.mark.parametrize("name", KINDS)
def test_a_corpus_of_nothing_is_a_clear_error(name: str, tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a").write_bytes(b"")
    (tmp_path / "files" / "b").write_bytes(KINDS[name][0]([" ", "\n"]))
    corpus = {"directory": str(tmp_path / "files"), "train": ["*"], "held_out": 0.0} | KINDS[name][1]
    config = text_config(tmp_path / "out", tmp_path, corpus=corpus, tokenizer={"kind": "byte"})
    with pytest.raises(BadInput, match=r"no document for the split train.*left out: .*[1-9] empty"):
        prepare(config, executor=LocalExecutor(1), report=lambda progress: None)


@pytest.mark.parametrize("name", KINDS)
def test_a_corpus_travels_to_other_processes(name: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(KINDS[name][0](["one", "two"]))
    corpus = corpus_of(place=tmp_path, **KINDS[name][1])
    copy, pieces = pickle.loads(pickle.dumps((corpus, corpus.pieces(9))))
    assert copy == corpus
    found = [one for piece in pieces for one in copy.read(piece, Report())]
    assert found == everything(corpus, 9)[0]
