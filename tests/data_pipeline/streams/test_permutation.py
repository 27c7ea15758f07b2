"""The keyed permutation: a bijection for every size, another for every key, and close to uniform."""

from collections import Counter

import numpy as np
import pytest

from data_pipeline.streams.permutation import Permutation


@pytest.mark.parametrize("size", [*range(1, 130), 1000, 4095, 4096, 4097, 9973, 65537, 100_000])
def test_is_a_bijection(size: int) -> None:
    order = Permutation(size, 7, 3)(np.arange(size))
    assert order.dtype == np.int64
    assert np.array_equal(np.sort(order), np.arange(size))


def test_any_place_alone_is_what_it_is_among_all() -> None:
    permutation = Permutation(10_007, "x", 1)
    everything = permutation(np.arange(10_007))
    for place in (0, 1, 5000, 10_006):
        assert permutation(np.array([place]))[0] == everything[place]
    assert np.array_equal(permutation(np.array([[3, 4], [5, 6]])), everything[3:7].reshape(2, 2))


def test_very_large_sizes_stay_in_range_and_do_not_collide() -> None:
    size = 2**61 + 12345
    images = Permutation(size, 0)(np.arange(100_000))
    assert images.min() >= 0
    assert images.max() < size
    assert len(np.unique(images)) == 100_000
    assert abs(images.mean() / size - 0.5) < 6 / np.sqrt(12 * 100_000)


def test_orders_are_what_they_always_were() -> None:
    """Else a run that goes on with another version reads some of its data twice, and some never."""
    assert Permutation(10, 7, 3, "samples")(np.arange(10)).tolist() == [9, 6, 4, 3, 1, 0, 2, 7, 5, 8]
    ends = Permutation(10**12, 7, 3, "samples")(np.array([0, 10**12 - 1]))
    assert ends.tolist() == [105029428681, 291380030201]


def test_keys_that_differ_give_orders_that_differ() -> None:
    paths = [(0, 0, "documents"), (0, 1, "documents"), (1, 0, "documents"), (0, 0, "samples"), ("0", 0, "documents")]
    orders = [tuple(Permutation(50, *path)(np.arange(50))) for path in paths]
    assert len(set(orders)) == len(paths)
    assert orders[0] == tuple(Permutation(50, *paths[0])(np.arange(50)))


@pytest.mark.parametrize("size", [4, 5])
def test_every_order_of_a_few_is_equally_likely(size: int) -> None:
    num_orders = {4: 24, 5: 120}[size]
    expected = 60
    counts = Counter(tuple(Permutation(size, key)(np.arange(size))) for key in range(expected * num_orders))
    missing = expected * (num_orders - len(counts))
    chi_squared = sum((count - expected) ** 2 / expected for count in counts.values()) + missing
    freedom = num_orders - 1
    assert chi_squared < freedom + 6 * np.sqrt(2 * freedom)


def test_a_large_order_has_no_trend() -> None:
    size = 100_003
    order = Permutation(size, 5)(np.arange(size)).astype(float)
    limit = 5 / np.sqrt(size)
    assert abs(np.corrcoef(order, np.arange(size))[0, 1]) < limit
    for lag in (1, 2, 316, 317):
        assert abs(np.corrcoef(order[:-lag], order[lag:])[0, 1]) < limit


@pytest.mark.parametrize("indices", [[-1], [10], [3, 10]])
def test_places_outside_are_refused(indices: list[int]) -> None:
    with pytest.raises(IndexError, match=r"range\(10\)"):
        Permutation(10, 0)(np.array(indices))


def test_nothing_cannot_be_permuted() -> None:
    with pytest.raises(ValueError, match="size 0"):
        Permutation(0, 0)
