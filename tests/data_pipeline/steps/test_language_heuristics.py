"""Shares of scripts and of listed words, just within and just outside."""

import pytest
from pydantic import ValidationError

from data_pipeline.steps import LanguageHeuristicsConfig
from data_pipeline.steps.language_heuristics import script_counts
from tests.data_pipeline.steps.documents import outcome

STEP = LanguageHeuristicsConfig(kind="language_heuristics")


def test_letters_are_counted_by_script() -> None:
    assert script_counts("Naïve Привет 東京 タワー ١٢ 12 😀!") == {"LATIN": 5, "CYRILLIC": 6, "CJK": 2, "KATAKANA": 3}


def test_share_of_the_script() -> None:
    assert outcome(STEP, "abcdefghi я") == "abcdefghi я"
    assert outcome(STEP, "abcdefgh я") == "-other_script"
    assert outcome(STEP, "12 34 ?!") == "-no_letters"
    russian = STEP.model_copy(update={"scripts": ("CYRILLIC", "LATIN")})
    assert outcome(russian, "привет x") == "привет x"


def test_share_of_listed_words() -> None:
    step = STEP.model_copy(update={"words": ("der", "die", "das"), "least_listed_words": 0.1})
    within = "Der " + "Baum " * 9
    assert outcome(step, within) == within
    assert outcome(step, within + "Baum") == "-few_listed_words"


@pytest.mark.parametrize("scripts", [["KLINGON"], ["LATIN", "latin"], ["UNNAMED"], [""], []])
def test_scripts_that_no_letter_has_are_refused(scripts: list[str]) -> None:
    message = r"no script of any letter; .*ARABIC, .*LATIN, .*YI" if scripts else "at least 1"
    with pytest.raises(ValidationError, match=message):
        LanguageHeuristicsConfig.model_validate({"kind": "language_heuristics", "scripts": scripts})


def test_every_script_that_is_counted_can_be_named() -> None:
    rare = ("THAI", "ETHIOPIC", "OLD", "CUNEIFORM", "LATIN", "CJK")
    assert LanguageHeuristicsConfig(kind="language_heuristics", scripts=rare).scripts == rare
