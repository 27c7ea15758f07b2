"""Gopher's bounds on repetition, just within and just outside; shares by enumeration."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.steps import GopherRepetitionConfig
from data_pipeline.steps.gopher_repetition import _covered, _repeated
from data_pipeline.steps.words import run_hashes, word_hashes
from tests.data_pipeline.steps.documents import outcome

LOOSE = GopherRepetitionConfig(
    kind="gopher_repetition",
    most_duplicate_lines=1,
    most_duplicate_line_characters=1,
    most_duplicate_paragraphs=1,
    most_duplicate_paragraph_characters=1,
    most_in_top_run={},
    most_in_duplicate_runs={},
)
DEFAULT = GopherRepetitionConfig(kind="gopher_repetition")


def only(*fields: str) -> GopherRepetitionConfig:
    """The paper's bounds for these alone."""
    return LOOSE.model_copy(update={field: getattr(DEFAULT, field) for field in fields})


def different(count: int, length: int = 4) -> list[str]:
    return [f"{number:0{length}d}" for number in range(count)]


@pytest.mark.parametrize(("separator", "kind"), [("\n", "line"), ("\n\n", "paragraph")])
def test_duplicate_lines_and_paragraphs(separator: str, kind: str) -> None:
    step = only(f"most_duplicate_{kind}s")
    within = separator.join([*different(7), "0000", "0000", "0001"])
    outside = separator.join([*different(13), *["0000"] * 6])
    assert outcome(step, within) == within
    assert outcome(step, outside) == f"-duplicate_{kind}s"
    characters = only(f"most_duplicate_{kind}_characters")
    within = separator.join([*different(8), "0000", "0001"])
    outside = separator.join([*different(8), "0000", "00012", "00012"])
    assert outcome(characters, within) == within
    assert outcome(characters, f"{outside}{separator}0003{separator}0002") == f"-duplicate_{kind}_characters"


@pytest.mark.parametrize("length", [2, 3, 4])
def test_the_most_frequent_run(length: int) -> None:
    share = DEFAULT.most_in_top_run[length]
    step = LOOSE.model_copy(update={"most_in_top_run": {length: share}})
    covered = 2 * length
    total = round(covered / share + 0.499999)
    run = [f"r{place:03d}" for place in range(length)]
    within = " ".join([*run, *different(total - covered), *run])
    outside = " ".join([*run, *different(int(covered / share - 1e-9) - covered - 1), *run])
    assert outcome(step, within) == within
    assert outcome(step, outside) == "-top_runs"


@pytest.mark.parametrize("length", range(5, 11))
def test_runs_that_come_again(length: int) -> None:
    share = DEFAULT.most_in_duplicate_runs[length]
    step = LOOSE.model_copy(update={"most_in_duplicate_runs": {length: share}})
    covered = 2 * length
    total = -(-covered * 100 // round(share * 100))
    run = [f"r{place:03d}" for place in range(length)]
    within = " ".join([*run, *different(total - covered), *run])
    outside = " ".join([*run, *different(total - covered - 1), *run])
    assert outcome(step, within) == within
    assert outcome(step, outside) == "-duplicate_runs"


@given(st.lists(st.sampled_from(["a", "bb", "ccc", "dddd"]), min_size=1, max_size=30), st.integers(1, 4))
def test_shares_are_those_of_enumeration(words: list[str], length: int) -> None:
    runs = [tuple(words[start : start + length]) for start in range(len(words) - length + 1)]
    counts = Counter(runs)
    inside = {place for start, run in enumerate(runs) if counts[run] > 1 for place in range(start, start + length)}
    lengths = np.array([len(word) for word in words])
    hashes = run_hashes(word_hashes(words), length)
    assert _covered(_repeated(hashes, only_top=False), length, lengths) == sum(lengths[place] for place in inside)
    most = max(counts.values(), default=0)
    top = next((run for run in runs if counts[run] == most > 1), None)
    inside = {place for start, run in enumerate(runs) if run == top for place in range(start, start + length)}
    assert _covered(_repeated(hashes, only_top=True), length, lengths) == sum(lengths[place] for place in inside)


def test_what_never_repeats_stays() -> None:
    text = "\n\n".join(" ".join(different(40)[start : start + 10]) for start in (0, 10, 20, 30))
    assert outcome(DEFAULT, text) == text
    assert outcome(DEFAULT, f"{text} {text}") == "-duplicate_line_characters"
