"""Leases between real processes, and refusals that leave nothing behind."""

import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from subprocess import PIPE

import pytest

from data_pipeline.config import BadInput, Refused
from pretrain import config
from pretrain.experiment import Experiment
from pretrain.lease import Lease
from pretrain.run_directory import create, read_experiment, refuse_changes

HOLD = """
import sys, time, pathlib
from pretrain.lease import Lease
with Lease(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def experiment() -> Experiment:
    return config.load(Experiment, config.recipe_path("tiny_rbm"))


def hold(directory: Path) -> subprocess.Popen[str]:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(directory)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


def test_a_live_lease_refuses_and_a_dead_one_is_taken_over(tmp_path: Path) -> None:
    holder = hold(tmp_path)
    try:
        with pytest.raises(Refused, match=f"process {holder.pid}"), Lease(tmp_path):
            pass
        assert json.loads((tmp_path / "lease.json").read_text())["pid"] == holder.pid, "the holder's lease is untouched"
    finally:
        holder.kill()
        holder.wait()
    with Lease(tmp_path):
        assert json.loads((tmp_path / "lease.json").read_text())["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_a_lease_elsewhere_is_live_while_its_count_moves(tmp_path: Path) -> None:
    with Lease(tmp_path, renew_seconds=0.2) as lease:
        lease.owner = replace(lease.owner, host="another-host")
        while "another-host" not in (tmp_path / "lease.json").read_text():
            time.sleep(0.05)
        with pytest.raises(Refused, match="another-host"), Lease(tmp_path, renew_seconds=0.2):
            pass
        lease.ended.set()
        lease.thread.join()
        with Lease(tmp_path, renew_seconds=0.2) as second:
            assert json.loads((tmp_path / "lease.json").read_text())["token"] == second.owner.token


CLAIM = """
import sys, pathlib
from data_pipeline.config import Refused
from pretrain.lease import Lease
print("ready", flush=True)
sys.stdin.readline()
try:
    with Lease(pathlib.Path(sys.argv[1])):
        print("held", flush=True)
        sys.stdin.readline()
except Refused:
    print("refused", flush=True)
"""


@pytest.mark.parametrize("stale", [False, True])
def test_of_many_at_once_one_gets_it(tmp_path: Path, stale: bool) -> None:
    if stale:
        gone = {
            "token": "gone",
            "host": socket.gethostname(),
            "pid": 2**22 + 1,
            "started": "",
            "machine": "",
            "beats": 3,
        }
        (tmp_path / "lease.json").write_text(json.dumps(gone))
    command = [sys.executable, "-c", CLAIM, str(tmp_path)]
    claims = [subprocess.Popen(command, stdin=PIPE, stdout=PIPE, text=True) for _ in range(4)]
    try:
        for words in ("ready", None):
            for claim in claims:
                assert claim.stdout is not None
                assert claim.stdin is not None
                if words:
                    assert claim.stdout.readline().strip() == words
                else:
                    claim.stdin.write("\n")
                    claim.stdin.flush()
        answers = [claim.stdout.readline().strip() for claim in claims if claim.stdout is not None]
        assert sorted(answers) == ["held", "refused", "refused", "refused"]
    finally:
        for claim in claims:
            claim.kill()
            claim.wait()


def test_a_run_is_created_once(tmp_path: Path) -> None:
    create(tmp_path / "run", experiment())
    assert read_experiment(tmp_path / "run") == experiment()
    with pytest.raises(Refused, match="resume"):
        create(tmp_path / "run", experiment())


def test_places_that_are_no_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(BadInput, match="cannot be written"):
        create(tmp_path / "file" / "run", experiment())
    with pytest.raises(BadInput, match="not empty"):
        create(tmp_path, experiment())
    with pytest.raises(BadInput, match="no run"):
        read_experiment(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_changes_are_refused_by_name_and_allowed_by_name() -> None:
    old, new = {"a": {"b": 1}, "c": 2}, {"a": {"b": 3}, "c": 2}
    with pytest.raises(Refused, match=r"a\.b: was 1, is now 3"):
        refuse_changes(old, new, (), "experiment")
    refuse_changes(old, new, ("a.b",), "experiment")
    refuse_changes(old, new, ("a",), "experiment")
    with pytest.raises(Refused):
        refuse_changes(old, new, ("c",), "experiment")
