"""Text that is not as it should be: by policy, and counted."""

import pytest

from data_pipeline.config import BadInput
from data_pipeline.sources.decoding import Found, InvalidUtf8, Nul, TextPolicy, decoded, text_of
from data_pipeline.sources.document import Document, Report


def decode(content: bytes | str, *, invalid_utf8: InvalidUtf8 = "skip", nul: Nul = "keep") -> tuple[str | None, dict]:
    report = Report()
    document = decoded(Found("a", content, "file", 3, 9), TextPolicy(invalid_utf8, nul), report)
    if document is not None:
        assert document == Document("a", document.text, len(document.text.encode()), "file", 3, 9)
    return document and document.text, dict(report.counts)


@pytest.mark.parametrize(
    ("content", "policy", "text", "counts"),
    [
        (b"b\xffd", "skip", None, {"invalid_utf8": 1}),
        (b"b\xffd", "replace", "b\ufffdd", {"replaced_utf8": 1}),
        (b"\xed\xa0\x80", "skip", None, {"invalid_utf8": 1}),  # half of a surrogate pair, as CESU-8 has them
        ("b\ud800d", "skip", None, {"lone_surrogate": 1}),
        ("b\ud800d", "replace", "b\ufffdd", {"replaced_surrogate": 1}),
        ("\ud83d\ude00", "replace", "😀", {"replaced_surrogate": 1}),
        ("naïve 東京", "stop", "naïve 東京", {}),
        ("naïve 東京".encode(), "stop", "naïve 東京", {}),
        (b" \n", "stop", None, {"empty": 1}),
        ("", "stop", None, {"empty": 1}),
    ],
)
def test_what_cannot_be_utf8(content: bytes | str, policy: InvalidUtf8, text: str | None, counts: dict) -> None:
    assert decode(content, invalid_utf8=policy) == (text, counts)


@pytest.mark.parametrize(
    ("policy", "text", "counts"),
    [
        ("keep", "a\0b", {"kept_nul": 1}),
        ("remove", "ab", {"removed_nul": 1}),
        ("skip", None, {"nul": 1}),
    ],
)
@pytest.mark.parametrize("content", [b"a\0b", "a\0b"])
def test_nul(content: bytes | str, policy: Nul, text: str | None, counts: dict) -> None:
    assert decode(content, nul=policy) == (text, counts)


def test_what_is_nothing_but_nul_is_empty_without_it() -> None:
    assert decode(b"\0\0", nul="remove") == (None, {"removed_nul": 1, "empty": 1})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"ab\xff", r"a: not UTF-8 at byte 2.*corpus\.invalid_utf8"),
        ("ab\udc00", r"a: half of a surrogate pair at character 2.*corpus\.invalid_utf8"),
        (b"ab\0", r"a: holds NUL at character 2.*corpus\.nul"),
    ],
)
def test_each_can_stop(content: bytes | str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        decode(content, invalid_utf8="stop", nul="stop")


@pytest.mark.parametrize(
    ("charset", "data", "text"),
    [
        ("ISO-8859-1", "naïve".encode("latin-1"), "naïve"),
        ("'windows-1251'", "мир".encode("cp1251"), "мир"),
        ("Shift_JIS", "東京".encode("shift_jis"), "東京"),
        ("utf-16", "東京".encode("utf-16"), "東京"),
        ("gbk", "东京".encode("gbk"), "东京"),
        ("no such charset", "東京".encode(), "東京"),
        ("idna", "東京".encode(), "東京"),
        ("rot13", b"plain", "plain"),
    ],
)
def test_charsets_of_the_web_and_nothing_else(charset: str, data: bytes, text: str) -> None:
    assert text_of("a", data, "stop", Report(), charset=charset) == text
