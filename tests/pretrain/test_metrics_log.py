"""metrics.jsonl holds every step once, whatever was killed in between."""

from pathlib import Path

from pretrain.metrics_log import MetricsLog, read_rows


def write(directory: Path, first_step: int, steps: range, value: float) -> None:
    with MetricsLog(directory, first_step=first_step, tensorboard=False) as log:
        for step in steps:
            log.write({"step": step, "loss": value})


def test_rows_after_the_resumed_step_are_written_anew(tmp_path: Path) -> None:
    write(tmp_path, 0, range(1, 8), 1.0)
    write(tmp_path, 4, range(5, 10), 2.0)
    rows = read_rows(tmp_path)
    assert [row["step"] for row in rows] == list(range(1, 10))
    assert [row["loss"] for row in rows] == [1.0] * 4 + [2.0] * 5


def test_a_line_torn_by_a_kill_is_left_out(tmp_path: Path) -> None:
    write(tmp_path, 0, range(1, 4), 1.0)
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text()[:-9])
    assert [row["step"] for row in read_rows(tmp_path)] == [1, 2]
    write(tmp_path, 2, range(3, 5), 2.0)
    assert [row["step"] for row in read_rows(tmp_path)] == [1, 2, 3, 4]


def test_numbers_reach_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with MetricsLog(tmp_path, first_step=0, tensorboard=True) as log:
        log.write({"step": 1, "loss": 2.5, "unit": "nats", "seconds": {"data": 0.25}})
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert {tag: events.Scalars(tag)[0].value for tag in events.Tags()["scalars"]} == {
        "loss": 2.5,
        "seconds/data": 0.25,
    }
