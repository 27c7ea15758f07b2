"""Slow workers are named by window, once for as long as they are slow."""

from cluster.observer import Work, WorkerStatus
from cluster.stragglers import WINDOW_STEPS, Stragglers


def statuses(step: int, *workers: tuple[float, float]) -> list[WorkerStatus]:
    """Each worker's seconds so far, of data and of forward."""
    return [
        WorkerStatus(rank, 1, f"10.0.0.{rank}", step, "reduce", 1.0, work=Work(step, {"data": d, "forward": f}))
        for rank, (d, f) in enumerate(workers)
    ]


def test_of_two_the_slower_is_measured_by_the_faster() -> None:
    stragglers = Stragglers(1.5)
    assert stragglers.see(statuses(1, (0.0, 0.0), (0.0, 0.0))) == []
    assert stragglers.see(statuses(WINDOW_STEPS, (1.0, 5.0), (1.0, 50.0))) == [], "the window is not over"
    (found,) = stragglers.see(statuses(1 + WINDOW_STEPS, (2.0, 8.0), (2.0, 18.0)))
    assert (found.worker, found.node, found.phase, found.factor) == (1, "10.0.0.1", "forward", 2.0)


def test_a_straggler_is_named_again_only_after_it_was_none() -> None:
    stragglers = Stragglers(1.5)
    stragglers.see(statuses(1, (0.0, 0.0), (0.0, 0.0), (0.0, 0.0)))
    named, seconds = [], [0.0, 0.0, 0.0]
    for window, slow in enumerate((True, True, False, True), start=1):
        seconds = [seconds[0] + 1, seconds[1] + 1, seconds[2] + (3 if slow else 1)]
        found = stragglers.see(statuses(1 + window * WINDOW_STEPS, *((0.0, done) for done in seconds)))
        named.append([straggler.worker for straggler in found])
    assert named == [[2], [], [], [2]]


def test_what_is_no_slower_than_the_factor_is_not_named() -> None:
    stragglers = Stragglers(1.5)
    stragglers.see(statuses(1, (0.0, 0.0), (0.0, 0.0)))
    assert stragglers.see(statuses(1 + WINDOW_STEPS, (0.0, 10.0), (0.0, 15.0))) == []


def test_a_window_of_little_work_goes_on() -> None:
    """Of 0.15 and 0.3 s in 20 steps: until the slower has worked for a second."""
    stragglers = Stragglers(1.5)
    stragglers.see(statuses(1, (0.0, 0.0), (0.0, 0.0)))
    named = []
    for window in range(1, 6):
        found = stragglers.see(statuses(1 + window * WINDOW_STEPS, (0.0, 0.3 * window), (0.0, 0.15 * window)))
        named.append([straggler.worker for straggler in found])
    assert named == [[], [], [], [0], []]
