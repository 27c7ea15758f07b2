"""FAULTS 22: one job at a time has a run directory; a dead one's lease is taken over, and a lost one stops itself."""

import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from data_pipeline.config import Refused
from pretrain import lease
from pretrain.lease import Lease
from tests.cli.command_line import ROOT, Forks, ended, started, wait_for_step
from tests.cli.conftest import segue  # noqa: F401

LONG = ("tiny_rbm", "steps=1000000", "checkpoint.every=20", "evaluate.every=null", "log.every=1000")


@pytest.mark.slow
def test_22_two_jobs_on_one_directory(segue: Forks, tmp_path: Path) -> None:  # noqa: F811
    """The second is refused and changes nothing; after kill -9 of the first, the same command goes on."""
    run = tmp_path / "run"
    with started("train", *LONG, "--run", run, cwd=tmp_path) as first:
        wait_for_step(run, 25, first)
        for verb in (["resume", run], ["train", *LONG, "--run", run]):
            second = segue.run(*verb, cwd=tmp_path)
            assert second.code == 3
            second.one_message()
        assert "in use by process" in segue.run("resume", run, cwd=tmp_path).one_message()
        first.kill()
        first.wait()
        rows = (run / "metrics.jsonl").read_text().count("\n")
    assert (run / "lease.json").exists(), "a killed job cannot give it back"
    with started("resume", run, cwd=tmp_path) as next_job:
        wait_for_step(run, rows + 25, next_job)
        assert json.loads((run / "lease.json").read_text())["pid"] == next_job.pid
        next_job.send_signal(signal.SIGTERM)
        assert ended(next_job).code == 5
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events] == ["started", "resumed", "preempted"]
    assert events[1]["step"] >= 20
    assert not (run / "lease.json").exists()


HOLD_ELSEWHERE = """
import dataclasses, pathlib, sys
from data_pipeline.config import Refused
from pretrain import lease
from pretrain.lease import Lease
lease = Lease(pathlib.Path(sys.argv[1]), renew_seconds=0.05)
lease.owner = dataclasses.replace(lease.owner, host="another-host")
with lease:
    lease.check()
    print("held", flush=True)
    sys.stdin.readline()
    try:
        lease.check()
        print("still held", flush=True)
    except Refused as refused:
        print(refused, flush=True)
"""


@contextmanager
def holder_elsewhere(directory: Path) -> Iterator[subprocess.Popen[str]]:
    """A job that says it runs on another machine, where nobody here can look for its process."""
    command = [sys.executable, "-c", HOLD_ELSEWHERE, str(directory)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            yield holder
        finally:
            holder.kill()


def answer(holder: subprocess.Popen[str]) -> str:
    """What it says when it looks at its lease once more."""
    return holder.communicate("go on\n", timeout=100)[0]


def test_22_a_job_that_was_silent_finds_its_lease_taken_over(tmp_path: Path) -> None:
    """Its machine stood still for so long that another job took the run; awake again, it must not save."""
    with holder_elsewhere(tmp_path) as holder:
        os.kill(holder.pid, signal.SIGSTOP)
        with Lease(tmp_path, renew_seconds=0.05) as ours:
            os.kill(holder.pid, signal.SIGCONT)
            said = answer(holder)
            ours.check()
    assert f"taken over by process {os.getpid()}" in said
    assert "stops without saving" in said


def test_22_a_job_elsewhere_that_beats_keeps_it(tmp_path: Path) -> None:
    with holder_elsewhere(tmp_path) as holder:
        with pytest.raises(Refused, match="another-host"), Lease(tmp_path, renew_seconds=0.2):
            pass
        assert answer(holder) == "still held\n"


def test_22_a_lease_that_was_removed_stops_its_owner(tmp_path: Path) -> None:
    """Workers look by the claim that they were sent."""
    with Lease(tmp_path) as lease:
        claim = pickle.loads(pickle.dumps(lease.claim))
        claim.check()
        (tmp_path / "lease.json").unlink()
        for check in (claim.check, lease.check):
            with pytest.raises(Refused, match="is gone"):
                check()


def test_a_lease_that_cannot_be_read_for_a_moment_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And storage that is gone at the end is no other end of the run."""
    failing = [OSError(116, "Stale file handle")] * 2
    read = lease._read_lease

    def sometimes(path: Path) -> object:
        if failing:
            raise failing.pop()
        return read(path)

    monkeypatch.setattr(lease, "READ_AGAIN_SECONDS", 0.01)
    with lease.Lease(tmp_path) as held:
        monkeypatch.setattr(lease, "_read_lease", sometimes)
        held.check()
        assert failing == []
        failing += [OSError(116, "Stale file handle")] * 9
        with pytest.raises(OSError, match="Stale"):
            held.check()
