"""Latency of paths that can be counted by hand, and what holds of every path."""

import random
from collections.abc import Callable

import pytest

from data_pipeline.config import BadInput
from evals.metrics import latency as module
from evals.metrics.latency import (
    ReadPath,
    arcs,
    average_lagging,
    average_proportion,
    differentiable_average_lagging,
    latency,
    length_adaptive_average_lagging,
    mean_arc,
)

LAGGING: tuple[Callable[[ReadPath], float], ...] = (
    average_lagging,
    length_adaptive_average_lagging,
    differentiable_average_lagging,
)


def path(reads: tuple[int, ...], source: int, reference: int | None = None) -> ReadPath:
    return ReadPath(reads, source, reference or len(reads))


def wait(k: int, source: int, target: int) -> ReadPath:
    return path(tuple(min(k + i, source) for i in range(target)), source)


@pytest.mark.parametrize("length", [1, 5, 12])
def test_wait_k_lags_by_k_where_lengths_are_equal(length: int) -> None:
    for k in range(1, length + 1):
        for measure in LAGGING:
            assert measure(wait(k, length, length)) == pytest.approx(k, abs=1e-12)
        assert arcs(wait(k, length, length))[0] == k - 1


def test_reading_everything_first() -> None:
    for source, target in ((7, 7), (7, 3), (3, 7)):
        everything = path((source,) * target, source)
        assert average_proportion(everything) == 1
        for measure in LAGGING:
            assert measure(everything) == pytest.approx(source, abs=1e-12)


def test_the_diagonal() -> None:
    assert average_proportion(wait(1, 9, 9)) == pytest.approx(10 / 18, abs=1e-12)
    assert mean_arc(wait(1, 9, 9)) == 0


def test_cases_by_hand() -> None:
    picture = path((3, 3, 4, 4), 4)
    assert arcs(picture) == (2, 1, 1, 0)
    assert average_proportion(picture) == 14 / 16
    assert average_lagging(picture) == (3 + 2 + 2) / 3
    assert differentiable_average_lagging(picture) == 3  # g' = 3, 4, 5, 6
    gamed = path((1, 6, 6, 6, 6, 6), 6)
    assert average_lagging(gamed) == 3  # (1 + 5) / 2
    assert differentiable_average_lagging(gamed) == pytest.approx(26 / 6, abs=1e-12)  # g' = 1, 6, 7, 8, 9, 10
    short = path((2, 4), 4)  # gamma = 1/2
    assert average_lagging(short) == (2 + 4 - 2) / 2
    assert differentiable_average_lagging(short) == (2 + 4 - 2) / 2
    unread = path((1, 1, 2), 6)  # gamma = 1/2, the source never read to its end
    assert average_lagging(unread) == (1 + (1 - 2) + (2 - 4)) / 3
    assert differentiable_average_lagging(unread) == 1  # g' = 1, 3, 5


def test_writing_more_games_average_lagging_and_not_its_adaptive_form() -> None:
    """Papi et al. 2022: gamma is that of the longer of output and reference."""
    honest, babbling = path((2, 4, 4), 4, 3), path((2, 4, 4, 4, 4, 4), 4, 3)
    assert length_adaptive_average_lagging(honest) == average_lagging(honest)
    assert length_adaptive_average_lagging(babbling) == average_lagging(babbling)
    terse = path((2, 4, 4), 4, 6)
    assert average_lagging(terse) == average_lagging(honest)
    assert length_adaptive_average_lagging(terse) == pytest.approx((2 + 4 - 4 / 6) / 2, abs=1e-12)


def test_what_was_waited_for_is_never_caught_up() -> None:
    seed = random.randrange(2**32)
    draw = random.Random(seed)
    for _ in range(300):
        source, target = draw.randint(1, 9), draw.randint(1, 9)
        one = path(tuple(sorted(draw.randint(0, source) for _ in range(target))), source)
        less = path(tuple(max(0, read - 1) for read in one.reads), source)
        lag = sum(read - i * source / target for i, read in enumerate(one.reads)) / target
        assert differentiable_average_lagging(one) >= lag - 1e-12, seed
        assert differentiable_average_lagging(less) <= differentiable_average_lagging(one) + 1e-12, seed
        assert 0 <= average_proportion(one) <= 1, seed


def test_metrics_are_means_over_sentences_with_output() -> None:
    paths = [wait(1, 4, 4), wait(3, 4, 4), ReadPath((), 5, 5)]
    found = {metric.name: metric for metric in latency(paths, tokens="words", protocol={"split": "test"})}
    assert list(found) == [name for name, _, _ in module.MEASURES]
    assert found["average_lagging"].value == 2
    assert found["average_lagging"].stderr == 1
    assert found["differentiable_average_lagging"].value == 2
    assert found["mean_arc"].value == (0 + 5 / 4) / 2
    assert all(metric.count == 2 and metric.better == "lower" for metric in found.values())
    assert found["average_lagging"].protocol["tokens"] == "words"


@pytest.mark.parametrize(("reads", "source"), [((2, 1), 3), ((1, 4), 3), ((-1, 2), 3), ((1,), 0)])
def test_bad_paths(reads: tuple[int, ...], source: int) -> None:
    with pytest.raises(BadInput):
        ReadPath(reads, source, 1)


def test_no_output_at_all_has_no_latency() -> None:
    assert latency([ReadPath((), 5, 5)] * 2, tokens="words", protocol={}) == ()
