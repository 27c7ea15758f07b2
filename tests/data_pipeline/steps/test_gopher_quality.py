"""Gopher's bounds: for each, a document just within it and one just outside."""

import pytest

from data_pipeline.steps import GopherQualityConfig
from tests.data_pipeline.steps.documents import outcome

STEP = GopherQualityConfig(kind="gopher_quality")


def words(count: int, *special: str, word: str = "plain") -> str:
    """So many words, the stop words "the" and "of" first, then the special ones."""
    return " ".join(["the", "of", *special, *[word] * (count - 2 - len(special))])


def lines(count: int, *special: str) -> str:
    """So many lines of six words, the special ones first."""
    return "\n".join([*special, *["the end of all this prose"] * (count - len(special))])


@pytest.mark.parametrize(
    ("within", "outside", "reason"),
    [
        (words(50), words(49), "few_words"),
        (words(100_000), words(100_001), "many_words"),
        (words(52, "abcd", word="abc"), words(52, word="abc"), "short_words"),
        (words(60, *["x" * 11] * 15, word="x" * 10), words(60, *["x" * 11] * 16, word="x" * 10), "long_words"),
        (words(60, "#", "a##", "###"), words(60, "#", "a##", "####"), "hash_signs"),
        (words(60, *["so..."] * 5, "on…"), words(60, *["so..."] * 6, "on…"), "ellipses"),
        (
            lines(10, *["• moreover the end of everything"] * 9),
            lines(10, *["- moreover the end of everything"] * 10),
            "bullet_lines",
        ),
        (lines(20, *["the end of more..."] * 6), lines(20, *["the end of more…"] * 7), "ellipsis_lines"),
        (words(60, *["1234"] * 12), words(60, *["1234"] * 13), "few_alphabetic_words"),
        (" ".join(["The,", '"And"', *["plain"] * 58]), " ".join(["The,", "the", *["plain"] * 58]), "few_stop_words"),
    ],
    ids=lambda value: value if value.isidentifier() and "_" in value else "",
)
def test_just_within_and_just_outside(within: str, outside: str, reason: str) -> None:
    assert outcome(STEP, within) == within
    assert outcome(STEP, outside) == f"-{reason}"


def test_bounds_are_fields() -> None:
    assert outcome(STEP.model_copy(update={"least_words": 3}), words(3)) == words(3)
    assert outcome(STEP.model_copy(update={"stop_words": ("und", "der"), "least_stop_words": 1}), words(60)).startswith(
        "-"
    )


def test_no_word_at_all_is_dropped_whatever_the_bounds() -> None:
    assert outcome(STEP.model_copy(update={"least_words": 0}), " \n ") == "-few_words"
