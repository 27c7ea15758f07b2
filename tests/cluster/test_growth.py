"""Growth that finds no room, for others were faster: workers and cluster are stood for, the supervisor is real."""

from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Any

import pytest

from cluster import supervise
from cluster.job import Job
from cluster.supervise import Supervisor
from cluster.topology import NoRoomError, Shape
from data_pipeline.config import Preempted
from pretrain.run_directory import create
from tests.faults.workers import events, experiment

STOP: Any = SimpleNamespace(asked=False)
HEAD: Any = SimpleNamespace(wait=lambda: None)


class Groups:
    """Makes groups of workers that stop as asked, where they find room; remembers (size, seconds waited for room)."""

    def __init__(self) -> None:
        self.starts: list[tuple[int, float]] = []
        self.most = 2

    def __call__(self, job: Job, workers: int, *, wait_seconds: float, **_: Any) -> "Groups":
        self.starts.append((workers, wait_seconds))
        if workers > self.most:
            raise NoRoomError("others have it")
        return self

    def __enter__(self) -> "Groups":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        pass

    def request_stop_at_save(self) -> None:
        pass

    def poll(self) -> int:
        raise Preempted("stopped as asked")


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch) -> Groups:
    """Four places are there, and seem to be free."""
    made = Groups()
    monkeypatch.setattr(supervise, "WorkerGroup", made)
    monkeypatch.setattr(supervise, "room", lambda *_: 4)
    monkeypatch.setattr(supervise, "free_room", lambda *_: 4)
    monkeypatch.setattr(supervise, "GROWTH_LOOK_SECONDS", 60.0)
    return made


def test_growth_in_vain_waits_for_nothing_and_is_tried_less_often(tmp_path: Path, groups: Groups) -> None:
    create(tmp_path, experiment("batch.micro_batches=4", "supervision.wait_minutes=30"))
    supervisor = Supervisor(Job(tmp_path, tmp_path), Shape(4), may_shrink=True)
    supervisor.size = 2
    supervisor.looked = -1000.0
    for _ in range(2):
        supervisor._start(HEAD, STOP)
    assert groups.starts == [(2, 1800.0), (4, 0.0)], "the larger group does not wait while none trains"
    assert (supervisor.size, supervisor.larger, supervisor.in_vain) == (2, 0, 1)
    assert [event["event"] for event in events(tmp_path)][-2:] == ["grows", "no room"]
    with pytest.raises(Preempted):  # who now stops does so by its own wish
        supervisor._start(HEAD, STOP)
    assert groups.starts[-1] == (2, 1800.0)
    supervisor.looked -= 61.0
    with pytest.raises(Preempted):
        supervisor._start(HEAD, STOP)
    assert supervisor.larger == 0, "too early for another look"
    supervisor.looked -= 60.0
    groups.most = 4
    supervisor._start(HEAD, STOP)
    assert supervisor.size == 4
    with pytest.raises(Preempted):
        supervisor._start(HEAD, STOP)
    assert (groups.starts[-1], supervisor.in_vain) == ((4, 0.0), 0)
