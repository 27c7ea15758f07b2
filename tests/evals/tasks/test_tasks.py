"""What holds of every task: names, protocols, and the same records from a model in any batches."""

import json
import math

import pytest

from evals.tasks import ALL, TASKS
from evals.tasks.task import accuracy, error_of_sum, likeliest, perplexity


def test_names_are_unique() -> None:
    assert len(TASKS) == len(ALL)
    assert len({task.title for task in ALL}) == len(ALL)


@pytest.mark.parametrize("name", TASKS)
def test_protocols_are_plain_and_say_what_is_read(name: str) -> None:
    task = TASKS[name]
    protocol = task.protocol()
    assert json.loads(json.dumps(protocol)) == protocol
    assert task.version >= 1
    assert set(protocol) & {"text", "options", "scored", "context"}


def test_accuracy() -> None:
    value = accuracy("accuracy", [True, True, True, False], filter="none")
    assert (value.value, value.unit, value.better, value.count) == (75, "%", "higher", 4)
    assert value.stderr == pytest.approx(100 * math.sqrt(0.75 * 0.25 / 3))
    assert accuracy("accuracy", [True]).stderr is None


def test_perplexity() -> None:
    value = perplexity("perplexity", [1.0, 5.0], [1, 2], "per word")
    assert (value.value, value.count) == (pytest.approx(math.e**2), 3)
    assert value.stderr == pytest.approx(math.e**2 * math.sqrt(2 * (1 + 1)) / 3)
    assert perplexity("perplexity", [1e6], [1], "per word").value == math.inf


def test_the_error_of_a_sum() -> None:
    assert error_of_sum([3.0], [1]) is None
    assert error_of_sum([2.0, 4.0, 6.0], [1, 2, 3]) == 0
    assert error_of_sum([1.0, 3.0], [5, 5]) == pytest.approx(2)


def test_the_likeliest_is_the_first_among_equals() -> None:
    assert likeliest([3.0, 1.0, 1.0]) == 1
