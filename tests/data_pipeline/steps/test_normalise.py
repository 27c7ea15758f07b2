"""Normalising: each option does what it says and no more; twice is once."""

import unicodedata
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.sources.document import Document
from data_pipeline.steps import NormaliseConfig
from tests.data_pipeline.steps.documents import alterations, document, outcome

OFF = NormaliseConfig(
    kind="normalise", unicode=None, line_ends=False, control_characters=False, trailing_white_space=False
)


def only(**fields: object) -> NormaliseConfig:
    return OFF.model_copy(update=fields)


@pytest.mark.parametrize(
    ("step", "text", "expected", "counted"),
    [
        (only(unicode="NFC"), "cafe\u0301 \ufb01", "caf\u00e9 \ufb01", "unicode"),
        (only(unicode="NFKC"), "cafe\u0301 \ufb01", "caf\u00e9 fi", "unicode"),
        (only(line_ends=True), "a\r\nb\rc\u2028d\x0ce\n", "a\nb\nc\nd\ne\n", "line_ends"),
        (only(control_characters=True), "\ufeffa\x00b\tc\r\nd\x1be\x7f", "ab\tc\r\nde", "control_characters"),
        (only(trailing_white_space=True), " a \u00a0\n\tb\t\r\n \nc  \n\n ", " a\n\tb\r\n\nc", "white_space"),
        (only(most_empty_lines=1), "a\n\n\n\nb\n\nc\nd", "a\n\nb\n\nc\nd", "white_space"),
        (only(most_empty_lines=0), "a\n\n\n\nb\n\nc\nd", "a\nb\nc\nd", "white_space"),
    ],
)
def test_each_option(step: NormaliseConfig, text: str, expected: str, counted: str) -> None:
    assert outcome(step, text) == expected
    assert alterations(step, text) == {counted: 1}
    assert outcome(step, expected) == expected
    assert alterations(step, expected) == {}
    assert outcome(OFF, text) == text


def test_what_is_altered_is_counted_in_bytes_too() -> None:
    found = NormaliseConfig(kind="normalise").apply(document("e\u0301\r\n"), Counter())
    assert isinstance(found, Document)
    assert (found.text, found.num_bytes) == ("\u00e9", 2)


def test_a_document_that_needs_nothing_is_the_same_object() -> None:
    one = document("plain text\nof two lines")
    assert NormaliseConfig(kind="normalise").apply(one, Counter()) is one


def test_nothing_left_is_dropped() -> None:
    assert outcome(NormaliseConfig(kind="normalise"), "\x00\x01 \r\n") == "-empty"


@given(
    text=st.text(
        alphabet=st.one_of(
            st.characters(codec="utf-8"), st.sampled_from("\r\n\x00 \t\x0c\x85\u2028\u0301e\u00a0\ufeff")
        ),
        min_size=1,
    ),
    form=st.sampled_from(["NFC", "NFKC", None]),
    line_ends=st.booleans(),
    control=st.booleans(),
    white=st.booleans(),
    most=st.sampled_from([None, 0, 1, 2]),
)
def test_twice_is_once(
    text: str, form: str | None, line_ends: bool, control: bool, white: bool, most: int | None
) -> None:
    step = NormaliseConfig.model_validate(
        {
            "kind": "normalise",
            "unicode": form,
            "line_ends": line_ends,
            "control_characters": control,
            "trailing_white_space": white,
            "most_empty_lines": most,
        }
    )
    once = outcome(step, text)
    assert once == "-empty" or outcome(step, once) == once
    assert form is None or once == "-empty" or unicodedata.is_normalized(form, once)
