"""Redaction: each kind just inside its shape and just outside; twice is once; counts are those of marks."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from data_pipeline.steps import RedactConfig
from tests.data_pipeline.steps.documents import alterations, outcome

STEP = RedactConfig(kind="redact")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("write to Jane.Doe+x@mail.example.co.uk.", "write to <email>."),
        ("from 192.168.10.254, port 80", "from <ip_address>, port 80"),
        ("at 2001:db8::8a2e:370:7334 and 1:2:3:4:5:6:7:8", "at <ip_address> and <ip_address>"),
        ("call +44 20 7946 0958 or +1-800-555-0199", "call <phone> or <phone>"),
        ("card 4111 1111 1111 1111, 5500-0000-0000-0004", "card <card>, <card>"),
        ("2 4111 1111 1111 1111 123, 4111111111111111 12/27", "2 <card> 123, <card> 12/27"),
        ("9 3782 822463 10005, 6240 0086 3119 6726 483, 6240008631196726483", "9 <card>, <card>, <card>"),
        ("3001 4111 1111 1111 1111 or 30 4111 1111 1111 1111", "3001 <card> or 30 <card>"),
        ("10.0.0.1-10.0.0.254", "<ip_address>-<ip_address>"),
        ("to GB82 WEST 1234 5698 7654 32 at once", "to <iban> at once"),
        ("DE89370400440532013000", "<iban>"),
        ("key AKIAABCDEFGHIJKLMNOP here", "key <secret> here"),
        ("https://me:pass@host/x", "https://<secret>@host/x"),
        ("-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----\nrest", "<secret>\nrest"),
    ],
)
def test_what_is_found(text: str, expected: str) -> None:
    assert outcome(STEP, text) == expected
    kinds = [part.partition(">")[0] for part in expected.split("<")[1:]]
    assert alterations(STEP, text) == {kind: kinds.count(kind) for kind in kinds}


@pytest.mark.parametrize(
    "text",
    [
        "user@host",
        "@name and me@",
        "version 1.2.3 and 256.1.1.1 and 1.2.3.4.5",
        "at 12:30:45, std::vector, dead::beef, a::b::c",
        "+1 234 567 is a sum",
        "+1234567890123456 has too many digits",
        "4111 1111 1111 1112",
        "411111111111",
        "4111 1111 11 11 11 11 and 41 11 11 11 11 11 11 11 are rows of a table",
        "GB82 WEST 1234 5698 7654 33",
        "GB82 WEST 1234 5698 7654 321",
        "XX82 WEST 1234 5698 7654 32",
        "basic understanding of token: the",
        "AKIAABCDEFGHIJKLMNO",
    ],
)
def test_what_is_left(text: str) -> None:
    assert outcome(STEP, text) == text
    assert alterations(STEP, text) == {}


def test_kinds_can_be_chosen() -> None:
    step = STEP.model_copy(update={"kinds": ("email",)})
    assert outcome(step, "a@b.org 10.0.0.1") == "<email> 10.0.0.1"


PIECES = [
    "a@b.org",
    "+1 800 555 0199",
    "4111111111111111",
    "10.0.0.1",
    "2001:db8::1",
    "DE89370400440532013000",
    "://u:p@h",
]


@given(
    st.lists(st.one_of(st.sampled_from(PIECES), st.text("0123456789.:+-@ aAE", max_size=12)), max_size=8).map("".join)
)
@example("a@b.org4111111111111111 10.0.0.1+18005550199")
def test_twice_is_once(text: str) -> None:
    once = outcome(STEP, text)
    assert outcome(STEP, once) == once


@pytest.mark.parametrize(
    "unit",
    ["sk-", "eyJ-", "eyJaaaaaaaa.", "a@", "a@a.", "://a:", "f:", "+1 ", "-----BEGIN ", "4 ", "1.1.1.1,", "4" * 16],
)
def test_a_long_text_of_beginnings_takes_no_time_by_its_square(unit: str) -> None:
    """By the square of it, half an hour."""
    text = unit * (400_000 // len(unit))
    assert outcome(STEP, f"{text} a@b.org").endswith(" <email>")


def test_marks_that_uncover_others_one_by_one() -> None:
    """A few are marked; a document of thousands is dropped, and in a moment."""
    for one, mark in (("+4912345678", "<phone>"), ("AKIAABCDEFGHIJKLMNOP", "<secret>")):
        assert outcome(STEP, one * 20) == mark * 20
        assert outcome(STEP, one * 20_000) == "-unsettled"
    assert outcome(STEP, "-".join(["10.0.0.1"] * 20)) == "-".join(["<ip_address>"] * 20)
    assert outcome(STEP, "-".join(["10.0.0.1"] * 20_000)) == "-unsettled"
