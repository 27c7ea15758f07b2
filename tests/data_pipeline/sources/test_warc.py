"""Web archives: the text of conversions and of pages; other records are counted, damage is noticed."""

import gzip
import io
import sys
import zlib
from pathlib import Path

import pytest
import zstandard
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from data_pipeline.config import BadInput
from data_pipeline.sources.html_text import text_of_html
from tests.data_pipeline.sources.reading import corpus_of, read


class Archive:
    """Records one after the other."""

    def __init__(self, compressed: bool = False) -> None:
        self.buffer = io.BytesIO()
        self.writer = WARCWriter(self.buffer, gzip=compressed)
        self.count = 0

    def add(self, kind: str, content: bytes, content_type: str, url: str = "https://example.org/a") -> "Archive":
        headers = {"WARC-Record-ID": f"<urn:uuid:{self.count}>", "Content-Type": content_type}
        record = self.writer.create_warc_record(url, kind, io.BytesIO(content), warc_headers_dict=headers)
        self.writer.write_record(record)
        self.count += 1
        return self

    def conversion(self, text: str) -> "Archive":
        return self.add("conversion", text.encode(), "text/plain")

    def answer(self, body: bytes, *headers: tuple[str, str], status: str = "200 OK", url: str = "") -> "Archive":
        http = StatusAndHeaders(status, list(headers), protocol="HTTP/1.1")
        return self.add(
            "response",
            http.to_ascii_bytes() + body,
            "application/http; msgtype=response",
            url or f"https://example.org/{self.count}",
        )

    def save(self, path: Path) -> bytes:
        path.write_bytes(self.buffer.getvalue())
        return self.buffer.getvalue()


HTML = ("Content-Type", "text/html")


@pytest.mark.parametrize("name", ["a.warc.wet", "a.warc.wet.gz", "b.wet.gz", "a.wet.zst"])
def test_conversions_are_documents(name: str, tmp_path: Path) -> None:
    archive = Archive(compressed=name.startswith("a") and name.endswith("gz"))
    archive.add("warcinfo", b"software: x\r\n", "application/warc-fields")
    for number in range(5):
        archive.conversion(f"Page {number} é\n\nWARC/1.0\r\n")
    data = archive.save(tmp_path / name)
    if name.startswith("b") or name.endswith("zst"):
        (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else zstandard.compress(data))
    documents, counts = read(corpus_of("warc", tmp_path))
    assert [one.text for one in documents] == [f"Page {number} é\n\nWARC/1.0\r\n" for number in range(5)]
    assert [one.id for one in documents] == [f"urn:uuid:{number}" for number in range(1, 6)]
    assert {one.source for one in documents} == {"https://example.org/a"}
    assert counts == {"other_record": 1}


def test_spans_are_those_of_the_records(tmp_path: Path) -> None:
    data = Archive().conversion("one").conversion("two").save(tmp_path / "a.wet")
    for one in read(corpus_of("warc", tmp_path))[0]:
        record = data[one.start : one.stop]
        assert record.startswith(b"WARC/1")
        assert record.rstrip().endswith(one.text.encode())


def test_answers_with_text(tmp_path: Path) -> None:
    page = "<html><head><title>Title</title><style>p {}</style></head><body><p>Caf\xe9<p>two</body></html>"
    seen = "Title\nCafé\ntwo"
    archive = Archive(compressed=True)
    archive.answer(b"plain", ("Content-Type", "text/plain"))
    archive.answer(page.encode(), HTML)
    archive.answer(page.encode("latin-1"), ("Content-Type", "text/html; charset=ISO-8859-1"))
    archive.answer(b'<meta charset="latin-1">' + page.encode("latin-1"), HTML)
    archive.answer(gzip.compress(page.encode()), HTML, ("Content-Encoding", "gzip"))
    archive.answer(zlib.compress(page.encode()), HTML, ("Content-Encoding", "deflate"))
    archive.answer(b"5\r\n<p>fi\r\n3\r\nve!\r\n0\r\n\r\n", HTML, ("Transfer-Encoding", "chunked"))
    archive.answer(b"picture", ("Content-Type", "image/png"))
    archive.answer(b"gone", HTML, status="404 Not Found")
    archive.answer(b"x", HTML, ("Content-Encoding", "br"))
    archive.answer(b"no gzip", HTML, ("Content-Encoding", "gzip"))
    archive.answer(gzip.compress(page.encode())[:-9], HTML, ("Content-Encoding", "gzip"))
    archive.answer(b"", HTML)
    archive.answer(b"b\xffd", HTML)
    archive.add("request", b"GET / HTTP/1.1\r\n\r\n", "application/http; msgtype=request")
    archive.save(tmp_path / "a.warc.gz")
    documents, counts = read(corpus_of("warc", tmp_path))
    assert [one.text for one in documents] == ["plain", *[seen] * 5, "five!"]
    assert counts == {"other_record": 3, "unreadable_record": 3, "empty": 1, "invalid_utf8": 1}


def test_addresses_lose_their_passwords(tmp_path: Path) -> None:
    Archive().answer(b"text", HTML, url="https://me:hunter22@example.org/").save(tmp_path / "a.warc")
    (document,) = read(corpus_of("warc", tmp_path))[0]
    assert document.source == "https://<redacted>@example.org/"


def test_records_that_expand_too_far_or_are_too_long(tmp_path: Path) -> None:
    archive = Archive()
    archive.answer(gzip.compress(b"x" * 30_000_000, 9), HTML, ("Content-Encoding", "gzip"))
    archive.conversion("y" * 200_000).conversion("good")
    archive.save(tmp_path / "a.warc")
    documents, counts = read(corpus_of("warc", tmp_path, max_document_bytes=100_000))
    assert [one.text for one in documents] == ["good"]
    assert counts == {"expands_too_far": 1, "too_long": 1}
    (tmp_path / "a.warc").rename(tmp_path / "b.warc.gz")
    bomb = Archive().conversion("good").conversion("z" * 30_000_000)
    (tmp_path / "b.warc.gz").write_bytes(gzip.compress(bomb.buffer.getvalue(), 9))
    documents, counts = read(corpus_of("warc", tmp_path))
    assert [one.text for one in documents] == ["good"]
    assert counts == {"expands_too_far": 1}


def test_an_archive_cut_anywhere_is_an_error_or_counted(tmp_path: Path) -> None:
    path, ends = tmp_path / "a.warc", []
    archive = Archive()
    for number in range(3):
        archive.conversion(f"text {number}" * 9)
        ends.append(archive.buffer.tell())
    whole = archive.save(path)
    for length in range(1, len(whole), 5):
        path.write_bytes(whole[:length])
        between = any(end - 4 <= length <= end for end in ends)
        if not between:
            with pytest.raises(BadInput, match=r"a\.warc: cannot be read .*corpus\.damaged_file"):
                read(corpus_of("warc", tmp_path))
        documents, counts = read(corpus_of("warc", tmp_path, damaged_file="skip"))
        assert counts == ({} if between else {"damaged_file": 1})
        assert all(one.text == f"text {number}" * 9 for number, one in enumerate(documents))


@pytest.mark.parametrize(
    "data",
    [
        b"no archive at all\n" * 20,
        gzip.compress(Archive().conversion("text").buffer.getvalue()),
        Archive().conversion("text").buffer.getvalue().replace(b"Content-Length: 4", b"Content-Length: 2"),
        Archive().conversion("text").buffer.getvalue().replace(b"Content-Length: 4", b"Content-Length: x"),
        Archive().conversion("text").buffer.getvalue().replace(b"Content-Length: 4", b"Content-Size: 4"),
    ],
    ids=["no archive", "compressed", "too short", "no number", "no length"],
)
def test_other_damage_is_named(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.warc").write_bytes(data)
    with pytest.raises(BadInput, match=r"a\.warc: cannot be read"):
        read(corpus_of("warc", tmp_path))


def test_without_warcio_the_remedy_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Archive().conversion("text").save(tmp_path / "a.wet")
    monkeypatch.setitem(sys.modules, "warcio.archiveiterator", None)
    with pytest.raises(BadInput, match=r"corpus\.kind warc: needs the package warcio.*segue\[warc\]"):
        read(corpus_of("warc", tmp_path))


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("a<br>b<b>c</b> d", "a\nbc d"),
        ("<ul><li>one<li>two</ul>three", "one\ntwo\nthree"),
        ("<script>if (a < b) {}</script>x<svg><title>no</title></svg>y", "xy"),
        ("&lt;tag&gt; &#233; &nbsp; x\0y", "<tag> é xy"),
        ("<!-- no --><p>un<i>closed", "unclosed"),
        ("a  \n\t b", "a b"),
        ("", ""),
        ("a<![x[ no ]]>b<![ 5 >c<![if !IE]>d<![CDATA[ no ]]>e", "abcde"),
        ("a<![x[ no end", "a<![x[ no end"),
    ],
)
def test_text_of_html(html: str, text: str) -> None:
    assert text_of_html(html) == text
