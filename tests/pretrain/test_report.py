"""What a worker is seen doing."""

from pretrain.report import BETWEEN, STARTING, Stopwatch


def test_a_worker_that_has_begun_is_not_seen_starting_again() -> None:
    """Between two phases it may stand still as well; its watcher gives it longer only while it starts."""
    stopwatch = Stopwatch()
    assert stopwatch.phase == STARTING
    with stopwatch("save"):
        with stopwatch("reduce"):
            assert stopwatch.phase == "reduce"
        assert stopwatch.phase == "save"
    assert stopwatch.phase == BETWEEN
    with stopwatch("data"):
        pass
    assert stopwatch.phase == BETWEEN
    assert stopwatch.ticks == 6
