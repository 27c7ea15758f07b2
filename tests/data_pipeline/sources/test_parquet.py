"""Parquet and Arrow: every row once, in groups, only the columns asked for, whatever the piece size."""

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as parquet
import pytest

from data_pipeline.config import BadInput
from data_pipeline.sources.document import Report
from tests.data_pipeline.sources.reading import corpus_of, read, texts

FORMATS = ("parquet", "arrow", "stream", "feather")


def write(path: Path, table: pa.Table, form: str, rows: int = 10) -> None:
    """In groups of that many rows."""
    if form == "parquet":
        parquet.write_table(table, path, row_group_size=rows)
    elif form == "feather":
        feather.write_feather(table, path, chunksize=rows, compression="zstd")
    else:
        new = pa.ipc.new_file if form == "arrow" else pa.ipc.new_stream
        with new(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=rows)


def table_of(count: int = 57, **columns: Any) -> pa.Table:
    rows = {"text": [f"text {number} é" for number in range(count)], "number": list(range(count))}
    return pa.table(rows | columns)


@pytest.mark.parametrize("form", FORMATS)
def test_every_row_once_whatever_the_pieces(form: str, tmp_path: Path) -> None:
    write(tmp_path / "a", table_of(), form)
    corpus = corpus_of("parquet", tmp_path)
    whole, _ = read(corpus)
    assert [one.text for one in whole] == [f"text {number} é" for number in range(57)]
    assert [one.id for one in whole] == [f"a:{number // 10}:{number % 10}" for number in range(57)]
    assert (whole[23].source, whole[23].start, whole[23].stop) == ("a:2", 3, 4)
    for piece_bytes in (1, 150, 400):
        assert len(corpus.pieces(piece_bytes)) > 1 or form == "stream"
        assert read(corpus, piece_bytes)[0] == whole


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    "kind",
    [pa.large_string(), pa.binary(), pa.dictionary(pa.int32(), pa.string()), pa.string_view()],
    ids=str,
)
def test_every_type_of_text(form: str, kind: pa.DataType, tmp_path: Path) -> None:
    column = pa.array(["one", "two é", "one", None], pa.string()).cast(kind)
    write(tmp_path / "a", pa.table({"text": column}), form, 4)
    documents, counts = read(corpus_of("parquet", tmp_path))
    assert [one.text for one in documents] == ["one", "two é", "one"]
    assert counts == {"no_text": 1}


@pytest.mark.parametrize("form", FORMATS)
def test_ids_and_what_is_wrong_in_rows(form: str, tmp_path: Path) -> None:
    wrong = pa.array([b"good", b"b\xffd", b"", b"x" * 100, b"good"], pa.binary()).view(pa.string())
    write(tmp_path / "a", pa.table({"text": wrong, "id": ["a", "b", "c", "d", None]}), form)
    documents, counts = read(corpus_of("parquet", tmp_path, id_field="id", max_document_bytes=50))
    assert [(one.id, one.text) for one in documents] == [("a", "good")]
    assert counts == {"invalid_utf8": 1, "empty": 1, "too_long": 1, "no_id": 1}
    numbered = pa.table({"text": ["one", "two"], "id": [7, 8]})
    write(tmp_path / "a", numbered, form)
    assert [one.id for one in read(corpus_of("parquet", tmp_path, id_field="id"))[0]] == ["7", "8"]


def test_rows_without_text_can_stop(tmp_path: Path) -> None:
    write(tmp_path / "a", pa.table({"text": ["one", None]}), "parquet")
    with pytest.raises(BadInput, match=r"a:0:1: has no text.*corpus\.bad_record"):
        read(corpus_of("parquet", tmp_path, bad_record="stop"))


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"text_field": "body"}, r"corpus\.text_field body: .*a has the columns text, number"),
        ({"text_field": "number"}, r"corpus\.text_field number: in .*a it is int64, not text"),
        ({"id_field": "name"}, r"corpus\.id_field name: .*a has the columns"),
    ],
)
def test_columns_that_are_not_there_are_refused(
    form: str, fields: dict[str, str], message: str, tmp_path: Path
) -> None:
    write(tmp_path / "a", table_of(), form)
    with pytest.raises(BadInput, match=message):
        corpus_of("parquet", tmp_path, **fields).pieces(1000)


def test_only_the_columns_asked_for_are_read(tmp_path: Path) -> None:
    other = [np.random.default_rng(number).bytes(1 << 20) for number in range(8)]
    parquet.write_table(table_of(8, other=other), tmp_path / "a")
    (tmp_path / "a").chmod(0o644)
    with (tmp_path / "a").open("r+b") as file:
        file.seek(4 << 20)
        file.write(b"\xff" * (1 << 20))  # within the other column: whoever reads it fails
    assert texts(corpus_of("parquet", tmp_path)) == [f"text {number} é" for number in range(8)]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("damage", ["cut", "wrong", "flipped"])
def test_damage_is_named_or_counted(form: str, damage: str, tmp_path: Path) -> None:
    path = tmp_path / "a"
    write(path, table_of(400, other=[b"x" * 100] * 400), form)
    data = bytearray(path.read_bytes())
    if damage == "cut":
        del data[len(data) // 2 :]
    elif damage == "wrong":
        data = bytearray(b"no table at all, but some words\n" * 10)
    else:
        data[:200] = b"\x7f" * 200
    path.write_bytes(data)
    with pytest.raises(BadInput, match=r"a: cannot be read .*corpus\.damaged_file to skip"):
        read(corpus_of("parquet", tmp_path))
    (tmp_path / "b").write_bytes(b"")
    write(tmp_path / "c", table_of(3), form)
    documents, counts = read(corpus_of("parquet", tmp_path, damaged_file="skip"))
    assert [one.text for one in documents if one.source.startswith("c")] == [f"text {number} é" for number in range(3)]
    assert counts == {"damaged_file": 1, "empty_file": 1}


def test_a_stream_cut_off_between_its_batches_is_noticed(tmp_path: Path) -> None:
    write(tmp_path / "a", table_of(), "stream")
    whole = (tmp_path / "a").read_bytes()
    (tmp_path / "a").write_bytes(whole[:-8])
    with pytest.raises(BadInput, match="without its end"):
        read(corpus_of("parquet", tmp_path))


def test_a_page_that_expands_too_far_is_left_out_and_counted(tmp_path: Path) -> None:
    schema = pa.schema({"text": pa.string()})
    with parquet.ParquetWriter(tmp_path / "a", schema, compression="zstd", use_dictionary=False) as writer:
        writer.write_table(pa.table({"text": ["before"]}))
        writer.write_table(pa.table({"text": ["x" * 50_000_000]}))
        writer.write_table(pa.table({"text": ["after"]}))
    documents, counts = read(corpus_of("parquet", tmp_path))
    assert [one.text for one in documents] == ["before", "after"]
    assert counts == {"expands_too_far": 1}


def test_a_long_text_repeated_by_a_dictionary_is_cut_off_in_bounded_memory(tmp_path: Path) -> None:
    """Some kilobytes that would be gigabytes: the file's own sizes do not tell."""
    word = np.random.default_rng(0).bytes(3000).hex()
    column = pa.DictionaryArray.from_arrays(np.zeros(500_000, dtype=np.int32), [word])
    parquet.write_table(pa.table({"text": column}), tmp_path / "a", compression=None, store_schema=False)
    assert (tmp_path / "a").stat().st_size < 20_000
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    corpus, most, count = corpus_of("parquet", tmp_path), 0, 0
    report = Report()
    for piece in corpus.pieces(1 << 30):
        for _ in corpus.read(piece, report):
            count += 1
            most = max(most, pa.total_allocated_bytes() - before)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert report.counts == {"expands_too_far": 1}
    assert 0 < count < 2000
    assert max(most, peak) < 8 << 20


def test_an_arrow_batch_that_expands_too_far_is_cut_off(tmp_path: Path) -> None:
    feather.write_feather(
        pa.table({"text": ["x" * 100_000] * 200}), tmp_path / "a", compression="zstd", compression_level=19
    )
    documents, counts = read(corpus_of("parquet", tmp_path))
    assert counts == {"expands_too_far": 1}
    assert 0 < len(documents) < 200
