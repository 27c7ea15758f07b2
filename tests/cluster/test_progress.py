"""Rows are read as they come, whatever happens to their file between two looks."""

import json
from pathlib import Path

from cluster.progress import Rows


def lines(*steps: int, loss: float = 1.0) -> bytes:
    return b"".join(json.dumps({"step": step, "loss": loss}).encode() + b"\n" for step in steps)


def steps(rows: Rows) -> list[int]:
    return [row["step"] for row in rows.new()]


def test_rows_come_once_and_a_line_that_is_being_written_later(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    rows = Rows(path)
    assert steps(rows) == []
    path.write_bytes(lines(1, 2) + lines(3)[:5])
    assert steps(rows) == [1, 2]
    assert steps(rows) == []
    path.write_bytes(lines(1, 2, 3, 4))
    assert steps(rows) == [3, 4]


def test_a_file_that_was_cut_off_is_read_again_however_long_it_is_by_then(tmp_path: Path) -> None:
    """A worker was lost: rows of later steps are cut off, and written anew with other times."""
    path = tmp_path / "metrics.jsonl"
    rows = Rows(path)
    for again in (lines(1, 2), lines(1, 2, 33, loss=0.25), lines(1, 22, 33, 4, 5, loss=0.125), b""):
        path.write_bytes(lines(1, 2, 3, 4))
        rows = Rows(path)
        assert steps(rows) == [1, 2, 3, 4]
        with path.open("r+b") as file:
            file.truncate(0)
            file.write(again)
        assert steps(rows) == [json.loads(line)["step"] for line in again.splitlines()]
        with path.open("ab") as file:
            file.write(lines(6))
        assert steps(rows) == [6]


def test_a_torn_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(lines(1) + b'{"step": 2, "lo\n' + lines(3))
    assert steps(Rows(path)) == [1, 3]
