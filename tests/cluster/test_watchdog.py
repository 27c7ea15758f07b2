"""Who is accused of hanging, and when."""

from pathlib import Path

import pytest

from cluster.observer import Observer, WorkerStatus
from cluster.watchdog import LONGEST_LOOK, START_SECONDS, Clock, Stillness, Watchdog, Watched, all_have_started, hung

LIMIT = 60.0
COLLECTIVE = ("/site/torch/distributed/distributed_c10d.py:3010 all_reduce", "/segue/group.py:31 all_reduce_sum")
ELSEWHERE = ("/segue/stream.py:12 read",)


def worker(rank: int, *, ticks: int, still: float, stack: tuple[str, ...], silent: float = 0.0) -> Watched:
    status = WorkerStatus(rank, 100 + rank, "10.0.0.1", 5, "data", 1.0, ticks, stack)
    return Watched(status, Stillness(ticks, seconds=still, silent_seconds=silent, starting=False))


def accused(*workers: Watched) -> list[int]:
    return [found.status.rank for found in hung(workers, LIMIT)]


def test_who_waits_in_a_collective_is_not_accused() -> None:
    assert accused(worker(0, ticks=9, still=70, stack=COLLECTIVE), worker(1, ticks=9, still=70, stack=ELSEWHERE)) == [1]


def test_who_waits_for_one_that_gets_on_is_not_accused() -> None:
    """The leader evaluates alone, and says so by ticks."""
    assert accused(worker(0, ticks=90, still=1, stack=ELSEWHERE), worker(1, ticks=9, still=70, stack=COLLECTIVE)) == []


def test_where_all_wait_those_behind_are_accused() -> None:
    everyone = [worker(rank, ticks=8 if rank == 2 else 9, still=70, stack=COLLECTIVE) for rank in range(4)]
    assert accused(*everyone) == [2]


def test_where_waiting_does_not_show_those_behind_are_accused() -> None:
    assert accused(worker(0, ticks=8, still=70, stack=ELSEWHERE), worker(1, ticks=9, still=70, stack=ELSEWHERE)) == [0]


def test_of_those_that_all_wait_the_one_that_does_not_answer_is_accused() -> None:
    everyone = [
        worker(0, ticks=9, still=70, stack=COLLECTIVE),
        worker(1, ticks=9, still=70, stack=COLLECTIVE, silent=40),
    ]
    assert accused(*everyone) == [1]


def test_nobody_is_accused_before_the_limit() -> None:
    assert accused(worker(0, ticks=9, still=59, stack=ELSEWHERE), worker(1, ticks=9, still=59, stack=COLLECTIVE)) == []


def test_a_worker_that_starts_has_longer() -> None:
    stillness = Stillness()
    stillness.see(WorkerStatus(0, 1, "10.0.0.1", 0, "starting", None))
    stillness.pass_time(START_SECONDS - 1)
    assert not stillness.hangs(LIMIT)
    assert not stillness.is_silent(LIMIT)
    stillness.see(WorkerStatus(0, 1, "10.0.0.1", 0, "restore", None, ticks=1))
    assert stillness.seconds == 0.0
    stillness.pass_time(LIMIT + 1)
    assert stillness.hangs(LIMIT)
    assert stillness.is_silent(LIMIT)


def test_a_worker_last_seen_starting_has_no_longer_once_another_has_done_a_step() -> None:
    starting, done = Stillness(), Stillness()
    starting.see(WorkerStatus(0, 1, "10.0.0.1", 0, "starting", None))
    done.see(WorkerStatus(1, 2, "10.0.0.1", 7, "reduce", 1.5, ticks=80))
    both = [
        Watched(WorkerStatus(0, 1, "10.0.0.1", 0, "starting", None), starting),
        Watched(WorkerStatus(1, 2, "10.0.0.1", 0, "reduce", None, ticks=2), done),
    ]
    starting.pass_time(LIMIT + 1)
    all_have_started(both)
    assert not starting.is_silent(LIMIT), "the first collective is not a step"
    both[1].status = WorkerStatus(1, 2, "10.0.0.1", 7, "reduce", 1.5, ticks=80)
    all_have_started(both)
    assert starting.is_silent(LIMIT)
    assert starting.hangs(LIMIT)


def test_a_watcher_that_slept_itself_accuses_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("cluster.watchdog.time.monotonic", lambda: now[0])
    clock = Clock()
    now[0] = 3600.0
    assert clock.elapsed() == LONGEST_LOOK


def test_a_watchdog_that_is_left_ends_nothing(tmp_path: Path) -> None:
    ended: list[int] = []
    with Watchdog(Observer(), tmp_path, limit=0.01, end=ended.append) as watchdog:
        pass
    assert not watchdog.thread.is_alive()
    assert ended == []
