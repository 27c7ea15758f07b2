"""Hashes of words and runs: the same whatever the blocks; equal where the words are, and only there."""

import numpy as np
import pytest

from data_pipeline.steps import words as module
from data_pipeline.steps.words import blocks, plain_words, run_hashes, text_runs, word_hashes


def test_plain_words_are_in_lower_case_without_punctuation() -> None:
    assert plain_words("It's a Well-Known\n«fact», said_NAÏVE 東京... 3.14 -- !") == [
        "its", "a", "wellknown", "fact", "saidnaïve", "東京", "314",
    ]  # fmt: skip


@pytest.mark.parametrize("block", [1, 7, 50, 1 << 20])
@pytest.mark.parametrize("length", [1, 2, 5])
def test_runs_do_not_depend_on_the_blocks(block: int, length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    text = " ".join(f"word{number}, \n" + "x" * (number % 9) for number in range(60))
    expected = run_hashes(word_hashes(plain_words(text)), length)
    monkeypatch.setattr(module, "BLOCK", block)
    assert "".join(blocks(text)) == text
    found = list(text_runs(text, length))
    assert (np.concatenate(found) == expected).all()
    assert len(found) > 1 or block > len(text)


def test_runs_are_equal_where_their_words_are() -> None:
    chosen = list("ababbacab")
    for length in (1, 2, 3):
        runs = [tuple(chosen[start : start + length]) for start in range(len(chosen) - length + 1)]
        hashes = run_hashes(word_hashes(chosen), length).tolist()
        assert len(hashes) == len(runs)
        assert len(set(zip(runs, hashes, strict=True))) == len(set(runs)) == len(set(hashes))
    assert len(run_hashes(word_hashes(chosen), 10)) == 0
    assert list(text_runs("too few words", 4)) == []


def test_few_words_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED", 10)
    many = [f"rare{number}" for number in range(100)]
    assert word_hashes(many).tolist() == [word_hashes([word])[0] for word in many]
    assert len(module._hashes) <= 10
