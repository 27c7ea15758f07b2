"""A job waits for its nodes, for so long and no longer, and says who is there."""

import socket

import pytest

from cluster.gathering import gather, main
from data_pipeline.config import GaveUp


def test_those_who_are_there_are_enough_or_are_named(ray_of_two: None) -> None:
    said: list[str] = []
    gather(1, 10, say=said.append)
    assert said == [f"1 of 1 nodes have joined: {socket.gethostname()}"]
    with pytest.raises(GaveUp, match=rf"1 of 2 nodes have joined in 0 s: {socket.gethostname()}; .* give them longer"):
        gather(2, 0, say=said.append)


def test_where_no_ray_answers_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import ray

    def nobody(**_: object) -> None:
        raise ConnectionError("nobody is there")

    monkeypatch.setattr(ray, "init", nobody)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    assert main(["2", "--seconds", "1"]) == 6
    assert capsys.readouterr().err == "no Ray cluster answers: nobody is there\n"
