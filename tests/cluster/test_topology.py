"""Who sits where, and where they meet."""

from importlib import import_module
from typing import Any

import psutil
import pytest

from cluster.topology import (
    LOOPBACK,
    Location,
    Shape,
    answering,
    interface_of,
    meeting_address,
    port_answers,
    reserve,
    room_on,
    seats,
)
from data_pipeline.config import BadInput
from pretrain.meeting import listen


def test_ranks_go_node_by_node() -> None:
    nodes = ["10.0.0.1", "10.0.0.2", "10.0.0.1", "10.0.0.3", "10.0.0.2"]
    seated = seats([Location(node, 100 + i, (str(i),)) for i, node in enumerate(nodes)])
    by_rank = sorted(seated, key=lambda seat: seat.rank)
    assert [seat.rank for seat in by_rank] == [0, 1, 2, 3, 4]
    assert [seat.node for seat in by_rank] == sorted(nodes)
    assert [seat.local_rank for seat in by_rank] == [0, 1, 0, 1, 0]
    assert {seat.world_size for seat in seated} == {5}


def test_workers_of_a_node_see_each_others_gpus_in_the_order_of_local_ranks() -> None:
    seated = seats([Location("a", 1, ("3",)), Location("b", 2, ("0",)), Location("a", 3, ("1",))])
    assert [seat.gpus for seat in seated] == [("3", "1"), ("0",), ("3", "1")]
    assert [seat.gpus[seat.local_rank] for seat in seated] == ["3", "0", "1"]


def test_one_node_meets_on_loopback_and_several_at_the_leader() -> None:
    alone = seats([Location("10.0.0.1", 1, ()), Location("10.0.0.1", 2, ())])
    assert meeting_address(alone) == LOOPBACK
    several = seats([Location("10.0.0.2", 1, ()), Location("10.0.0.1", 2, ())])
    assert meeting_address(several) == "10.0.0.2"


def test_a_port_answers_while_somebody_listens_there() -> None:
    with listen(LOOPBACK) as listener:
        port = listener.getsockname()[1]
        assert port_answers(LOOPBACK, port)
    assert not port_answers(LOOPBACK, port)


def test_interfaces_are_found_by_address() -> None:
    assert any(entry.address == LOOPBACK for entry in psutil.net_if_addrs()[interface_of(LOOPBACK)])
    with pytest.raises(BadInput, match=r"203\.0\.113\.7"):
        interface_of("203.0.113.7")


def test_nodes_that_answer_are_those_that_are_there() -> None:
    with listen(LOOPBACK) as listener, listen(LOOPBACK) as other:
        ports = [listener.getsockname()[1], other.getsockname()[1]]
        nodes = [
            {"Alive": alive, "NodeManagerAddress": LOOPBACK, "NodeManagerPort": ports[0]} for alive in (True, False)
        ]
        gone = {"Alive": True, "NodeManagerAddress": LOOPBACK, "NodeManagerPort": ports[1]}
        other.close()
        assert answering([gone, *nodes]) == [nodes[0]]


def test_a_node_is_a_bundle_where_whole_nodes_were_asked_for() -> None:
    whole, anywhere = Shape.of_nodes(2, 4), Shape(3)
    assert whole.bundles({"CPU": 1, "GPU": 1}, 8) == [{"CPU": 4, "GPU": 4}] * 2
    assert [whole.bundle_of(index) for index in range(8)] == [0, 0, 0, 0, 1, 1, 1, 1]
    assert anywhere.bundles({"CPU": 1}, 3) == [{"CPU": 1}] * 3
    assert [anywhere.bundle_of(index) for index in range(3)] == [0, 1, 2]


def test_room_on_whole_nodes_counts_those_that_hold_all_of_theirs() -> None:
    nodes = [{"CPU": 4.0}, {"CPU": 3.0}, {"CPU": 9.0, "accelerator_type:H100": 1.0}]
    assert room_on(nodes, {"CPU": 1.0}, Shape.of_nodes(3, 4)) == 8
    assert room_on(nodes, {"CPU": 1.0}, Shape(12)) == 16
    assert room_on(nodes, {"CPU": 1.0, "accelerator_type:H100": 0.001}, Shape(12)) == 9


@pytest.mark.parametrize(("shape", "strategy"), [(Shape(2), "PACK"), (Shape.of_nodes(2, 1), "STRICT_SPREAD")])
def test_whole_nodes_are_different_ones(shape: Shape, strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Ready:
        def wait(self, seconds: float) -> bool:
            return True

    asked: list[str] = []

    def placed(bundles: list[dict[str, float]], strategy: str) -> Ready:
        asked.append(strategy)
        return Ready()

    monkeypatch.setattr(import_module("ray.util.placement_group"), "placement_group", placed)
    reserve({"CPU": 1.0}, shape, 2, seconds=0.0)
    assert asked == [strategy]


def test_who_waits_for_room_asks_no_head_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray would end this process; here it is connected to none, and so would raise an error of its own."""

    class HeadIsGoneError(Exception):
        pass

    class Waiting:
        def wait(self, seconds: float) -> bool:
            return False

    def check() -> None:
        raise HeadIsGoneError

    def placed(*_: Any, **__: Any) -> Waiting:
        return Waiting()

    module = import_module("ray.util.placement_group")  # a function of Ray's has the same name
    monkeypatch.setattr(module, "placement_group", placed)
    with pytest.raises(HeadIsGoneError):
        reserve({"CPU": 1.0}, Shape(2), 2, seconds=600.0, check=check)
