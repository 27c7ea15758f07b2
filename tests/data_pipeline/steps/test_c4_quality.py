"""C4's rules: lines and documents just within and just outside."""

import pytest

from data_pipeline.steps import C4QualityConfig
from tests.data_pipeline.steps.documents import alterations, outcome

STEP = C4QualityConfig(kind="c4_quality")
BODY = "One sentence of five words. And here is another one! Is this the third one?"


@pytest.mark.parametrize(
    ("stays", "goes"),
    [
        ("It ends with its mark.", "It ends with no mark"),
        ('He said it ends so."', "He said it ends so,"),
        ("There are five words here.", "Only four words here."),
        ("This is about Java scripts.", "Please turn on JavaScript now."),
        ("These are all terms used.", "Read our Terms of Use first."),
        ("We ate all the cookies.", "This site uses cookies, as others do."),
    ],
)
def test_lines(stays: str, goes: str) -> None:
    assert outcome(STEP, f"{BODY}\n{stays}") == f"{BODY}\n{stays}"
    assert alterations(STEP, f"{BODY}\n{stays}") == {}
    assert outcome(STEP, f"{goes}\n{BODY}") == BODY
    assert alterations(STEP, f"{goes}\n{BODY}") == {"lines": 1}


@pytest.mark.parametrize(
    ("within", "outside", "reason"),
    [
        (BODY, "One sentence of five words. And here is another one!", "few_sentences"),
        (f"{BODY} A (round) bracket is here.", f"{BODY} A {{curly}} bracket is here.", "curly_bracket"),
        (f"{BODY} Lorem, then an ipsum here.", f"{BODY} Lorem Ipsum dolor sit amet.", "lorem_ipsum"),
    ],
)
def test_documents(within: str, outside: str, reason: str) -> None:
    assert outcome(STEP, within) == within
    assert outcome(STEP, outside) == f"-{reason}"


def test_citations_are_removed() -> None:
    cited = BODY.replace("words.", "words.[12]").replace("one!", "one![citation needed]")
    assert outcome(STEP, cited) == BODY
    assert alterations(STEP, cited) == {"citations": 1}
    assert outcome(STEP.model_copy(update={"citations": False}), f"{BODY} It is in [12].") == f"{BODY} It is in [12]."


def test_every_rule_can_be_left_out() -> None:
    free = C4QualityConfig(
        kind="c4_quality",
        terminal_punctuation=False,
        least_words_per_line=0,
        least_sentences=0,
        lorem_ipsum=False,
        curly_brackets=False,
        javascript=False,
        policies=False,
        citations=False,
    )
    text = "lorem ipsum {x}\njavascript\n\ncookie policy [1]"
    assert outcome(free, text) == text


def test_sentences_end_where_a_run_of_marks_does() -> None:
    three = 'Is it so?! He said "yes it is." (And so it was...) he'
    assert outcome(STEP, f"{three} did so too.") == f"{three} did so too."
    assert outcome(STEP, "It is a.b.c.d and x.y or e.g.z so that is one. And here is the second.") == "-few_sentences"


def test_a_long_line_of_marks_takes_no_time_by_its_square() -> None:
    """By the square of it, half an hour."""
    text = f"{'.' * 400_000}x and so it goes on. {BODY}"
    assert outcome(STEP, text) == text
