"""Merging keys and joining sets, against plain Python, for any cut in pieces and ranges."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.arrays import array_path, npy_bytes
from data_pipeline.prepare.executor import LocalExecutor
from data_pipeline.steps import first_copies
from data_pipeline.steps.first_copies import dropped_copies, sorted_keys, unite
from data_pipeline.steps.step import LISTING_FILE, Listing, Signatures


def sets_of(count: int, pairs: list[tuple[int, int]]) -> list[int]:
    """The least member of each one's set, by relaxation until nothing changes."""
    least = list(range(count))
    for _ in range(count):
        for a, b in pairs:
            least[a] = least[b] = min(least[a], least[b])
    return least


@given(st.lists(st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=12), max_size=4))
def test_sets_are_joined_to_their_least_member(batches: list[list[tuple[int, int]]]) -> None:
    parent = np.arange(20)
    for batch in batches:
        unite(parent, np.array(batch, dtype=np.int64).reshape(-1, 2))
    expected = sets_of(20, [pair for batch in batches for pair in batch])
    roots = parent.copy()
    for _ in range(20):
        roots = parent[roots]
    assert roots.tolist() == expected
    assert ((parent != np.arange(20)) == (np.array(expected) != np.arange(20))).all()


@pytest.mark.parametrize("step", [1, -1])
def test_a_long_chain_takes_no_time_by_its_square(step: int) -> None:
    """By the square of half a million, minutes."""
    count = 500_000
    parent = np.arange(count)
    unite(parent, np.stack([np.arange(count - 1), np.arange(1, count)], axis=1)[::step])
    assert (parent != np.arange(count)).sum() == count - 1


@pytest.mark.parametrize("range_keys", [1, 7, 1 << 22])
@pytest.mark.parametrize(("bands", "words"), [(1, 2), (3, 1)])
def test_pieces_and_ranges_make_no_difference(
    bands: int, words: int, range_keys: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first_copies, "RANGE_KEYS", range_keys)
    random = np.random.default_rng(bands)
    edges_of_ranges = [(1 << 64) * number // 6 for number in range(7)]  # of 40 documents, 7 in a range
    at_edges = [edge - less for edge in edges_of_ranges for less in (0, 1) if 0 <= edge - less < 1 << 64]
    values = np.array([*at_edges, *random.integers(0, 1 << 64, 13, dtype=np.uint64)], dtype=np.uint64)
    keys = values[random.integers(0, 25, size=(40, bands, words))]
    keys[:, :, 1:] %= np.uint64(3)
    skipped = {3, 20, 21}
    pairs = [
        (a, b)
        for a in range(40)
        for b in range(a)
        if not skipped & {a, b} and any((keys[a, band] == keys[b, band]).all() for band in range(bands))
    ]
    edges = (0, 0, 1, 20, 22, 40)
    for number, (start, stop) in enumerate(pairwise(edges)):
        positions = [place - start for place in range(start, stop) if place not in skipped]
        arrays = sorted_keys(keys[[place + start for place in positions]], positions)
        for kind, array in arrays.items():
            array_path(tmp_path, str(number), kind).write_bytes(npy_bytes(array))
    listing = Listing(names=tuple(str(number) for number in range(5)), offsets=edges)
    (tmp_path / LISTING_FILE).write_text(listing.model_dump_json())
    dropped = dropped_copies(Signatures(tmp_path), bands, LocalExecutor(1))
    assert pairs
    assert dropped.tolist() == [least != place for place, least in enumerate(sets_of(40, pairs))]
