"""A dropped turn leaves nothing behind, and what is replicated has equal bits on every worker, under every engine."""

from typing import Any

import pytest

from tests.pretrain.engines.runs import PRECISIONS, STAGES, transformer_xl

ENGINES = ("local", "canonical", *(f"zero {stage}" for stage in STAGES))
WORKERS = pytest.mark.parametrize("workers", ["one", "two"])
PARAMETERS = {name: parameter.numel() for name, parameter in transformer_xl().named_parameters()}


@WORKERS
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("engine", ENGINES)
def test_a_dropped_turn_leaves_no_trace(
    request: pytest.FixtureRequest, workers: str, engine: str, precision: str
) -> None:
    left: dict[str, Any] = request.getfixturevalue(workers)
    assert left["dropped"]["transformer_xl", engine, precision] == []


@WORKERS
@pytest.mark.parametrize("engine", ENGINES)
def test_nor_where_the_next_turn_has_no_gradient_for_some_weights(
    request: pytest.FixtureRequest, workers: str, engine: str
) -> None:
    assert request.getfixturevalue(workers)["dropped"]["sometimes", engine, "float32"] == []


@WORKERS
@pytest.mark.parametrize("engine", ENGINES[:-1])
def test_nor_in_a_game_of_two_players(request: pytest.FixtureRequest, workers: str, engine: str) -> None:
    assert request.getfixturevalue(workers)["dropped"]["game", engine, "float32"] == []


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("engine", [*ENGINES, *(f"game, {engine}" for engine in ENGINES[:-1])])
def test_replicas_have_the_same_bits_on_every_worker(two: dict[str, Any], engine: str, precision: str) -> None:
    names, before, after = two["replicas"][engine, precision]
    assert before == []
    assert after == names[:1], "one bit flipped on one worker is seen, in the tensor that it was flipped in"


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("engine", ENGINES)
def test_replicas_are_all_that_is_whole(two: dict[str, Any], engine: str, precision: str) -> None:
    names = two["replicas"][engine, precision][0]
    parts = {"weights", "exp_avg", "exp_avg_sq"} | ({"computed"} if precision == "bfloat16" else set())
    expected = {f"{part}/{name}" for part in parts for name in PARAMETERS}
    if engine in ("zero 1", "zero 2"):
        expected = {f"computed/{name}" for name in PARAMETERS}
    if engine == "zero 3":
        expected = {f"computed/{name}" for name, count in PARAMETERS.items() if count <= 100}
    assert len(names) == len(set(names))
    assert set(names) == expected


def test_buffers_are_replicas(two: dict[str, Any]) -> None:
    for engine in ENGINES[:-1]:
        assert "buffers/offset" in two["replicas"][f"game, {engine}", "float32"][0]
