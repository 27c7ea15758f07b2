"""A job waits for its nodes, for so long and no longer, and says who is there."""

import socket

import pytest

from cluster.gathering import gather, main
from data_pipeline.config import GaveUp


@pytest.fixture
def head(ray_of_two: None) -> str:
    """The address of a cluster of one node."""
    import ray

    return str(ray.get_runtime_context().gcs_address)


def test_those_who_are_there_are_enough_or_are_named(head: str) -> None:
    said: list[str] = []
    gather(head, 1, 10, say=said.append)
    assert said == [f"1 of 1 nodes have joined: {socket.gethostname()}"]
    with pytest.raises(GaveUp, match=rf"1 of 2 nodes have joined {head} in 0 s: {socket.gethostname()}; .* longer"):
        gather(head, 2, 0, say=said.append)


def test_it_says_so_by_its_exit_code(head: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([head, "1", "--seconds", "10"]) == 0
    assert main([head, "2", "--seconds", "0"]) == 6
    assert "1 of 2 nodes have joined" in capsys.readouterr().err


def test_a_head_that_does_not_answer_is_nobody() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"  # nobody listens there
        with pytest.raises(GaveUp, match=f"0 of 1 nodes have joined {address} in 0 s: none;"):
            gather(address, 1, 0)
