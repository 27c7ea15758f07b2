"""Duplicates: which are found, and with which probability; of each set the first stays."""

from pathlib import Path

import numpy as np
import pytest

from data_pipeline.config import BadInput
from data_pipeline.steps import NearDuplicatesConfig, near_duplicates
from data_pipeline.steps.near_duplicates import BandHashes, bands_and_rows
from data_pipeline.steps.words import plain_words
from tests.data_pipeline.steps.corpus import clean, files_of_lines, steps

pytest.importorskip("datasketch", reason="the extra segue[deduplicate] is not installed")

NEAR = {"kind": "near_duplicates", "shingle_words": 1}


def pair_of(similarity: float, number: int, *, union: int = 200) -> tuple[str, str]:
    """Two texts of words that no other pair has; the Jaccard similarity of their words is as given."""
    shared = round(similarity * union)
    words = [f"n{number}w{place}" for place in range(union)]
    cut = shared + (union - shared) // 2
    return " ".join(words[:cut]), " ".join(words[:shared] + words[cut:])


def share_found(similarity: float, count: int, work_folder: Path) -> float:
    pairs = [pair_of(similarity, number) for number in range(count)]
    corpus = files_of_lines(work_folder / "corpus", [a for a, _ in pairs], [b for _, b in pairs])
    texts, report = clean(corpus, steps(NEAR), work_folder / "work", piece_bytes=100_000)
    assert texts[:count] == [a for a, _ in pairs], "the first of each pair stays"
    assert len(texts) + report.get("near_duplicates/near_duplicate", 0) == 2 * count
    return 1 - (len(texts) - count) / count


def test_the_defaults_bands() -> None:
    assert bands_and_rows(0.7, 128) == (14, 9)


@pytest.mark.parametrize("similarity", [0.3, 0.5, 0.7, 0.8, 0.9])
def test_pairs_are_found_with_the_stated_probability(similarity: float, tmp_path: Path) -> None:
    """Within five standard deviations of the binomial distribution, one document more at the ends."""
    count = 300
    expected = 1 - (1 - similarity**9) ** 14
    margin = 5 * (expected * (1 - expected) / count) ** 0.5 + 1 / count
    assert share_found(similarity, count, tmp_path) == pytest.approx(expected, abs=margin)


def test_signatures_estimate_the_similarity() -> None:
    collector = BandHashes(NearDuplicatesConfig(kind="near_duplicates", shingle_words=1, num_perm=1024))
    a, b = (collector.values(text) for text in pair_of(0.6, 1))
    assert a is not None
    assert b is not None
    assert np.mean(a == b) == pytest.approx(0.6, abs=5 * (0.6 * 0.4 / 1024) ** 0.5)


def test_shingles_are_runs_of_plain_words() -> None:
    collector = BandHashes(NearDuplicatesConfig(kind="near_duplicates", shingle_words=3))
    one, same, other, short, nothing = (
        collector.values(text)
        for text in ("One two, three four.", "one TWO three; four one two three", "four three two one", "one two", "?!")
    )
    assert one is not None
    assert same is not None
    assert other is not None
    assert short is not None
    assert nothing is None
    assert 0.3 < np.mean(one == same) < 0.7, "2 of 4 shingles"
    assert np.mean(one == other) < 0.1
    assert len(plain_words("one two")) < 3


def test_of_a_chain_of_near_duplicates_the_first_stays(tmp_path: Path) -> None:
    words = [f"w{place}" for place in range(130)]
    chain = [" ".join(words[start : start + 100]) for start in range(0, 30, 2)]
    corpus = files_of_lines(tmp_path / "corpus", ["something else"], chain[::-1], ["last of all"])
    texts, report = clean(corpus, steps(NEAR), tmp_path / "work", piece_bytes=1500)
    assert texts == ["something else", chain[-1], "last of all"]
    assert report == {"near_duplicates/near_duplicate": len(chain) - 1}


def test_signatures_do_not_depend_on_what_is_mixed_together(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for together in (1, 3, 1 << 12):
        monkeypatch.setattr(near_duplicates, "TOGETHER", together)
        collector = BandHashes(NearDuplicatesConfig(kind="near_duplicates"))
        for number in range(10):
            collector.add(number, pair_of(0.5, number)[0])
        found.append({kind: array.tolist() for kind, array in collector.arrays().items()})
    assert found[0] == found[1] == found[2]


def test_equal_texts_are_found_and_only_those(tmp_path: Path) -> None:
    corpus = files_of_lines(tmp_path / "a", ["one", "two", "One", "one"], ["two ", "three", "two", "two!"])
    assert clean(corpus, steps("exact_duplicates"), tmp_path / "w1") == (
        ["one", "two", "One", "two ", "three", "two!"],
        {"exact_duplicates/duplicate": 2},
    )
    by_words = {"kind": "exact_duplicates", "compare": "words"}
    assert clean(corpus, steps(by_words), tmp_path / "w2") == (
        ["one", "two", "three"],
        {"exact_duplicates/duplicate": 5},
    )


def test_too_few_permutations_are_refused() -> None:
    with pytest.raises(BadInput, match=r"threshold 0\.99 with num_perm 2 leaves fewer than two bands"):
        bands_and_rows(0.99, 2)
