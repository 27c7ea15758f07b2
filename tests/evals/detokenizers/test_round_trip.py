"""Every string comes back, whatever it is; and a de-tokenizer that breaks its promise is found out."""

import re

import pytest

from evals.detokenizers import Detokenizer, PennTreebank, RoundTrip, WikiText, round_trip
from evals.detokenizers.reversible import Joins, ReversibleDetokenizer
from tests.evals.detokenizers import hostile

ALL = [PennTreebank(), WikiText(), PennTreebank(padded=False), WikiText(padded=False)]
names = pytest.mark.parametrize("detokenizer", ALL, ids=lambda detokenizer: detokenizer.name)


@names
def test_hostile_lines_come_back(detokenizer: Detokenizer) -> None:
    found = round_trip(detokenizer, hostile.lines(20_000, seed=1))
    assert found == RoundTrip(pieces=20_000, failed=0, first_failure=None)


@names
def test_distinct_lines_have_distinct_texts(detokenizer: Detokenizer) -> None:
    raws = set(hostile.lines(20_000, seed=2))
    assert len({detokenizer.text(raw) for raw in raws}) == len(raws)


@names
def test_a_map_of_lines_is_a_map_of_files(detokenizer: Detokenizer) -> None:
    pieces = [piece.replace("\n", " ") + "\n" for piece in hostile.lines(2_000, seed=3)]
    whole = detokenizer.text("".join(pieces))
    assert whole == "".join(map(detokenizer.text, pieces))
    assert whole.count("\n") == len(pieces)
    assert detokenizer.raw(whole) == "".join(pieces)


@names
def test_blanks_at_the_ends(detokenizer: Detokenizer) -> None:
    for body in ("", "foo", "a-b", "don't", "@-@"):
        raws = [
            " " * before + body + " " * after + end for before in range(6) for after in range(6) for end in ("", "\n")
        ]
        assert round_trip(detokenizer, raws).failed == 0


@names
def test_nothing_stays_nothing(detokenizer: Detokenizer) -> None:
    assert detokenizer.text("") == detokenizer.raw("") == ""


def test_long_input_takes_no_longer_for_each_token() -> None:
    for token in ("'", '"', "(", "@-@", "-", "'a", "1,", "<unk", ".", "="):
        for detokenizer in ALL:
            assert round_trip(detokenizer, [token * 20_000, f"{token} " * 20_000]).failed == 0


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evals.detokenizers.reversible.REMEMBERED", 50)
    detokenizer = WikiText()
    assert round_trip(detokenizer, hostile.lines(2_000, seed=4)).failed == 0
    assert len(detokenizer._written) <= 50
    assert len(detokenizer._read) <= 50


class JoinsHyphens:
    """What is widely done: patterns replaced everywhere."""

    name, version = "hyphens", 1

    def text(self, raw: str) -> str:
        return raw.replace(" @-@ ", "-")

    def raw(self, text: str) -> str:
        return re.sub(r"(?<=\w)-(?=\w)", " @-@ ", text)


class JoinsWithoutTrying(ReversibleDetokenizer):
    """Writes each segment as a word, whatever `split` makes of it."""

    def _reads(self, word: str, segment: str) -> bool:
        return True


def test_a_rule_that_is_always_applied_is_found_out() -> None:
    found = round_trip(JoinsHyphens(), [" a plain line \n", " two @-@ part \n", " Jean-Paul \n", " semi- @-@ final \n"])
    assert found == RoundTrip(pieces=4, failed=2, first_failure=" Jean-Paul \n")
    assert found.verdict == "not invertible: 2 of 4 pieces came back changed"


def test_trying_is_what_makes_it_invertible() -> None:
    """The same rules without the trial lose hostile lines."""
    joins = Joins(sides={"@-@": 3}, rules={})

    def rules(kind: type[ReversibleDetokenizer]) -> ReversibleDetokenizer:
        return kind(
            "hyphens",
            1,
            joins=joins,
            join=lambda segment: segment.replace(" @-@ ", "-"),
            split=lambda word: re.sub(r"(?<=\w)-(?=\w)", " @-@ ", word),
            padded=True,
        )

    raws = [" two @-@ part \n", " Jean-Paul \n", " ( @-@ ) \n"]
    assert round_trip(rules(ReversibleDetokenizer), raws).failed == 0
    assert round_trip(rules(JoinsWithoutTrying), raws).failed == 2
    assert rules(ReversibleDetokenizer).text(raws[0]) == "two-part\n"
    assert rules(ReversibleDetokenizer).text(raws[1]) == " Jean-Paul\n", "marked by a second blank"


def test_the_verdict_in_words() -> None:
    lines = [" foo . \n", " \n"]
    assert round_trip(WikiText(), lines).verdict == "invertible: all 2 pieces came back unchanged"
    assert round_trip(WikiText(), []).verdict == "not checked: there was no text"
