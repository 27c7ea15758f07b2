"""Requests that reach a worker before it has a trainer."""

from typing import Any

import pytest

from cluster.observer import Observer


class Asked:
    """Stands for a trainer; what was asked of it."""

    def __init__(self) -> None:
        self.requests: list[str] = []

    def request_stop(self) -> None:
        self.requests.append("stop")

    def request_stop_at_save(self) -> None:
        self.requests.append("stop at save")


@pytest.mark.parametrize("request_name", ["request_stop", "request_stop_at_save"])
def test_a_request_that_comes_while_a_worker_starts_is_kept_for_its_trainer(request_name: str) -> None:
    """A node may come back while the workers that are left start: it is asked for but once."""
    observer, trainer = Observer(), Asked()
    seen: Any = trainer
    getattr(observer, request_name)()
    observer.watch().trainer(seen)
    assert trainer.requests == [request_name.removeprefix("request_").replace("_", " ")]
    getattr(observer, request_name)()
    assert len(trainer.requests) == 2
