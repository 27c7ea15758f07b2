"""Which source a row comes from: exact counts for any weights at any row, and no source far from its share."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.streams.apportionment import LARGEST, Apportionment, Schedule, whole_numbers

NAMES = tuple("abcdefgh")
weights = st.dictionaries(st.sampled_from(NAMES), st.integers(1, 1000), min_size=1)
large_weights = st.dictionaries(st.sampled_from(NAMES), st.integers(1, LARGEST // len(NAMES)), min_size=1)
stages = st.lists(st.tuples(st.integers(1, 200), weights), min_size=1, max_size=4).map(
    lambda found: [(sum(first for first, _ in found[:number]), numbers) for number, (_, numbers) in enumerate(found)]
)
thorough = settings(max_examples=150, deadline=None)


def by_counting(source_N: np.ndarray) -> np.ndarray:
    """How many rows of the same source come before each."""
    return np.array([int((source_N[:row] == source).sum()) for row, source in enumerate(source_N)])


@thorough
@given(stages, st.integers(0, 2**40))
def test_every_row_is_the_next_of_its_source(stages: list[tuple[int, dict[str, int]]], seed: int) -> None:
    schedule = Schedule(stages, NAMES, seed)
    source, number = schedule.place(np.arange(400))
    assert np.array_equal(number, by_counting(source))
    for rows in (0, 1, 57, 399, 400):
        assert np.array_equal(schedule.counts(rows), np.bincount(source[:rows], minlength=len(NAMES)))


@thorough
@given(weights | large_weights, st.integers(0, 2**40), st.integers(0, 2**62))
def test_counts_and_places_agree_at_any_seek(numbers: dict[str, int], seed: int, far: int) -> None:
    apportioned = Apportionment(whole_numbers(dict(numbers)), NAMES, seed)
    source, number = apportioned.place(np.arange(far, far + 50))
    counts = apportioned.counts(far)
    assert np.array_equal(number, counts[source] + by_counting(source))
    assert np.array_equal(apportioned.counts(far + 50), counts + np.bincount(source, minlength=len(NAMES)))


@thorough
@given(weights | large_weights, st.integers(0, 2**40), st.integers(0, 2**62))
def test_no_source_is_far_from_its_share(numbers: dict[str, int], seed: int, rows: int) -> None:
    counts = Apportionment(whole_numbers(dict(numbers)), NAMES, seed).counts(rows).tolist()
    total = sum(numbers.values())
    assert sum(counts) == rows
    for place, name in enumerate(NAMES):
        distance = abs(counts[place] - Fraction(rows * numbers.get(name, 0), total))
        assert distance <= math.ceil(math.log2(len(numbers)))


def test_seeds_differ_in_who_begins() -> None:
    rows = np.arange(8)
    orders = {tuple(Apportionment({"a": 1, "b": 1, "c": 2}, NAMES, seed).place(rows)[0]) for seed in range(20)}
    assert len(orders) > 2


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"b": 0.3, "a": 0.7}, {"a": 7, "b": 3}),
        ({"a": 2, "b": 4.0, "c": 0}, {"a": 1, "b": 2}),
        ({"a": 1e-3, "b": 0.999}, {"a": 1, "b": 999}),
        ({"a": 5}, {"a": 1}),
    ],
)
def test_weights_are_whole_numbers(given: dict[str, float], expected: dict[str, int]) -> None:
    assert whole_numbers(given) == expected


def test_weights_that_are_none() -> None:
    with pytest.raises(ValueError, match="all weights are 0"):
        whole_numbers({"a": 0.0})
    with pytest.raises(ValueError, match="round them"):
        whole_numbers({"a": 0.12345678, "b": 0.87654321})
