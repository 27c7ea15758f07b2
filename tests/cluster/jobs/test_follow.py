"""With which exit code the follower of a job ends."""

from collections.abc import Iterator
from typing import Any

import pytest
import typer

from cluster.jobs import follow, submit
from cluster.jobs.job_state import JobState, State, Submission
from data_pipeline.config import GaveUp

SUBMISSION = Submission("mine-1", "train", "mine", "/shared", "/shared/runs/mine", "python launch.py", "--workers 1")


class OneJob:
    """Where one job is, in one state."""

    def __init__(self, state: State, exit_code: int | None) -> None:
        self.state = JobState(SUBMISSION, state, exit_code)

    def follow(self, job: str) -> Iterator[str]:
        yield "a line\n"

    def get(self, job: str) -> JobState:
        return self.state


def exit_code_of(jobs: Any, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(submit, "open_jobs", lambda _: jobs)
    monkeypatch.setattr(follow, "END_SECONDS", 0.0)
    try:
        follow.follow_to_end("local", "mine-1")
    except typer.Exit as ended:
        return ended.exit_code
    return 0


@pytest.mark.parametrize(
    ("state", "known", "told"),
    [
        ("succeeded", 0, 0),
        ("stopped", 5, 5),
        ("stopped", None, 5),
        ("failed", 3, 3),
        ("failed", None, 1),
        ("lost", None, 1),
    ],
)
def test_it_is_the_jobs(state: State, known: int | None, told: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray knows none of a job that it has stopped, which is no success."""
    assert exit_code_of(OneJob(state, known), monkeypatch) == told


def test_a_log_that_ends_before_its_job_is_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(GaveUp, match="its log ends, and it is running still"):
        exit_code_of(OneJob("running", None), monkeypatch)
