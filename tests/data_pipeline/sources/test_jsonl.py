"""JSON lines: every good line once, every bad one counted by its reason."""

import gzip
import json
from pathlib import Path

import pytest
import zstandard

from data_pipeline.config import BadInput
from tests.data_pipeline.sources.reading import corpus_of, read, texts

BAD = {
    b'{"text": "cut': "not_json",
    b"no json": "not_json",
    b"[1, 2]": "not_json",
    b'"text"': "not_json",
    b"[" * 100_000: "not_json",
    b'{"text": ' + b"1" * 5000 + b"}": "not_json",
    b'{"body": "words"}': "no_text",
    b'{"text": null}': "text_not_a_string",
    b'{"text": ["words"]}': "text_not_a_string",
    b'{"text": "b\xffd"}': "invalid_utf8",
    b'{"text": "\\ud800"}': "lone_surrogate",
    b'{"text": " "}': "empty",
    b"": "empty",
}


def test_bad_lines_are_counted_by_reason_and_the_others_kept(tmp_path: Path) -> None:
    good = b'{"text": "good \\ud83d\\ude00", "more": [1, {"a": 2}]}'
    (tmp_path / "a.jsonl").write_bytes(good + b"\n" + b"".join(bad + b"\n" + good + b"\n" for bad in BAD))
    documents, counts = read(corpus_of("jsonl", tmp_path))
    assert [one.text for one in documents] == ["good 😀"] * (len(BAD) + 1)
    reasons = list(BAD.values())
    assert counts == {reason: reasons.count(reason) for reason in reasons}


@pytest.mark.parametrize("bad", [bad for bad, reason in BAD.items() if reason.startswith(("n", "t"))])
def test_each_can_stop_and_is_named(bad: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "good"}\n' + bad + b"\n")
    with pytest.raises(BadInput, match=r"a\.jsonl:17: .*corpus\.bad_record"):
        read(corpus_of("jsonl", tmp_path, bad_record="stop"))


def test_text_that_is_not_utf8_can_stop_or_be_mended(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "b\xffd"}\n{"text": "b\\udc00d"}\n')
    assert texts(corpus_of("jsonl", tmp_path, invalid_utf8="replace")) == ["b\ufffdd"] * 2
    with pytest.raises(BadInput, match="not UTF-8 at byte 11"):
        read(corpus_of("jsonl", tmp_path, invalid_utf8="stop"))


def test_fields_within_objects_and_ids_of_their_own(tmp_path: Path) -> None:
    rows = [
        {"id": "a", "page": {"text": "one"}},
        {"id": 7, "page": {"text": "two"}},
        {"id": "c", "page.text": "three"},
        *({"id": id_, "page": {"text": "x"}} for id_ in (None, "", True, [1], "\ud800")),
        {"page": {"text": "x"}},
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    documents, counts = read(corpus_of("jsonl", tmp_path, text_field="page.text", id_field="id"))
    assert [(one.id, one.text) for one in documents] == [("a", "one"), ("7", "two"), ("c", "three")]
    assert counts == {"no_id": 6}


def test_ids_sources_and_byte_spans(tmp_path: Path) -> None:
    lines = [json.dumps({"text": f"text {number} é"}, ensure_ascii=False) for number in range(50)]
    content = b"\xef\xbb\xbf" + "\r\n".join(lines).encode()
    (tmp_path / "a.jsonl").write_bytes(content)
    documents, counts = read(corpus_of("jsonl", tmp_path), 100)
    assert [json.loads(content[one.start : one.stop])["text"] for one in documents] == [one.text for one in documents]
    assert [one.id for one in documents] == [f"a.jsonl:{one.start}" for one in documents]
    assert {one.source for one in documents} == {"a.jsonl"}
    assert counts == {"removed_byte_order_mark": 1}


def test_compressed_files_hold_the_same_documents(tmp_path: Path) -> None:
    content = b"".join(json.dumps({"text": f"text {number}" * 20}).encode() + b"\n" for number in range(500))
    (tmp_path / "a.jsonl").write_bytes(content)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(content))
    (tmp_path / "c.jsonl.zst").write_bytes(zstandard.compress(content))
    plain, gz, zst = (texts(corpus_of("jsonl", tmp_path, pattern)) for pattern in ("a*", "b*", "c*"))
    assert len(plain) == 500
    assert plain == gz == zst


def test_empty_files_are_counted_and_bombs_cut_off(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"")
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(b'{"text": "%s"}\n' % (b"x" * 990) * 10_000, 9))
    documents, counts = read(corpus_of("jsonl", tmp_path))
    assert counts == {"empty_file": 1, "expands_too_far": 1}
    assert 0 < len(documents) < 10_000
