"""The verbs for jobs on a real Ray cluster of this machine: one head of two processors, with a token."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.cli.command_line import LAUNCH
from tests.cluster.jobs.command import SLOW, User
from tests.faults.workers import assert_gone, assert_same_bits, events, kinds
from tests.processes import end_leftovers, free_port

pytestmark = pytest.mark.slow

TINY = "tiny_transformer_xl"


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    """Who has started a cluster; nothing of it is left afterwards."""
    end_leftovers()
    own = User(tmp_path_factory.mktemp("home"))

    def cluster(*arguments: str) -> str:
        command = [sys.executable, str(LAUNCH), "cluster", *arguments]
        done = subprocess.run(command, cwd=own.home, env=own.environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done
        return done.stdout

    cluster("start", "--num-cpus", "2")
    try:
        status = json.loads(cluster("status", "--json"))
        own.address = status["clusters"][0]["dashboard"]
        pids = [pid for node in status["nodes"] for pid in node["servers"].values()]
        below = [child.pid for pid in pids for child in psutil.Process(pid).children(recursive=True)]
        yield own
    finally:
        cluster("stop", "--force")
    assert_gone([*pids, *below])


def test_a_job_runs_on_the_cluster_and_is_told_of(user: User) -> None:
    job = user.json("submit", TINY, "steps=6", "--workers", "2", "--name", "mine")["id"]
    followed = user.run("logs", job, "--follow")
    assert followed.code == 0, followed
    assert "finished at step 6" in followed.out
    status = user.json("status", job)
    assert (status["state"], status["exit_code"], status["step"]) == ("succeeded", 0, 6)
    assert job in [row["id"] for row in user.json("list")]
    run = user.home / "runs" / "mine"
    assert kinds(run) == ["submitted", "started", "finished"]
    assert events(run)[1]["workers"] == 2


def test_a_cancelled_job_has_saved_and_goes_on_to_the_same_end(user: User) -> None:
    """Ray itself would kill it after three seconds, which a save may take longer than."""
    settings = (TINY, "steps=150", *SLOW, "--workers", "2")
    job = user.json("submit", *settings, "--name", "cut")["id"]
    user.wait_for_step(job, 3)
    cancelled = user.run("cancel", job)
    assert f"job {job} is over: stopped" in cancelled.out, cancelled
    run = user.home / "runs" / "cut"
    assert kinds(run) == ["submitted", "started", "preempted"]
    resumed = user.json("resume", job)["id"]
    assert user.wait_until_over(resumed)["state"] == "succeeded"
    assert kinds(run)[-2:] == ["resumed", "finished"]
    whole = user.json("submit", *settings, "--name", "whole")["id"]
    assert user.wait_until_over(whole)["state"] == "succeeded"
    assert_same_bits(run, user.home / "runs" / "whole")


def test_a_killed_driver_submitted_again_finds_its_run_by_name(user: User) -> None:
    settings = (TINY, "steps=60", *SLOW, "checkpoint.every=2", "--workers", "2", "--name", "fallen")
    job = user.json("submit", *settings)["id"]
    user.wait_for_step(job, 5)
    drivers = [p for p in psutil.process_iter(["cmdline"]) if "runs/fallen" in (p.info["cmdline"] or [])]
    assert drivers
    for driver in drivers:
        driver.kill()
    assert user.wait_until_over(job)["state"] == "failed"
    assert user.wait_until_over(user.json("submit", *settings)["id"])["state"] == "succeeded"
    assert kinds(user.home / "runs" / "fallen") == ["submitted", "started", "submitted", "resumed", "finished"]


def test_prepared_on_the_cluster(user: User) -> None:
    corpus = user.home / "corpus"
    corpus.mkdir()
    for number in range(200):
        (corpus / f"{number}.txt").write_text(f"The {number}. of some short texts, about nothing in particular. " * 5)
    texts = "data.corpus={kind: files, directory: corpus, train: ['*.txt'], document: file}"
    changes = (texts, "data.tokenizer.vocab_size=300", "data.directory=data/mine", "model.vocab_size=300")
    job = user.json("prepare", "quickstart", *changes)["id"]
    status = user.wait_until_over(job)
    assert status["state"] == "succeeded", status
    assert (user.home / "data" / "mine" / "manifest.json").is_file()


REFUSED = {
    "no resources": ([TINY, "batch.micro_batches=8", "--workers", "8"], 2, "needs 8 CPUs, the cluster has 2"),
    "no such nodes": (
        [TINY, "--nodes", "2", "--workers-per-node", "1"],
        2,
        "room for 1 of them, 1 on each of 2",
    ),
    "no accelerator": ([TINY, "--accelerator", "H100"], 2, "needs H100 accelerators, the cluster has none"),
    "unknown recipe": (["tiny_transformer_xk"], 2, "did you mean 'tiny_transformer_xl'"),
    "a secret for the job": ([TINY, "--env", "MY_API_KEY=x"], 2, "--env MY_API_KEY is secret by its name"),
    "name of another run": (
        [TINY, "steps=6", "seed=5", "--workers", "2", "--name", "mine"],
        3,
        "seed: was 0, is now 5",
    ),
}


@pytest.mark.parametrize(("arguments", "code", "told"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_at_once(user: User, arguments: list[str], code: int, told: str) -> None:
    before = user.json("list")
    ended = user.run("submit", *arguments, timeout=60)
    assert ended.code == code, ended
    assert told in ended.one_message()
    assert user.json("list") == before


def test_a_wrong_token(user: User, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("f" * 64)
    other = User(user.home, user.address, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(path)})
    ended = other.run("submit", TINY, timeout=60)
    assert ended.code == 2
    assert "does not take this token" in ended.one_message()


def test_no_cluster_at_the_address(user: User) -> None:
    ended = User(user.home, f"http://127.0.0.1:{free_port()}").run("submit", TINY, timeout=60)
    assert ended.code == 2
    assert "nothing answers there" in ended.one_message()


def test_storage_that_is_not_there(user: User, tmp_path: Path) -> None:
    """The cluster is of this machine, so that it can be seen before anything is sent."""
    place = tmp_path / "not" / "there"
    ended = user.run("submit", TINY, "--storage", place, timeout=60)
    assert ended.code == 2
    assert f"--storage {place}: there is no such directory" in ended.one_message()


def test_full_nodes_are_waited_for_and_named(user: User) -> None:
    """Both processors are another job's, on whose run nobody else is let."""
    first = user.json("submit", TINY, "steps=4000", *SLOW, "--workers", "2", "--name", "long")["id"]
    user.wait_for_step(first, 1)
    began = time.monotonic()
    again = user.run("submit", TINY, "steps=4000", *SLOW, "--workers", "2", "--name", "long")
    assert again.code == 3
    assert f"job {first} is running on" in again.one_message()
    second = user.json("submit", TINY, "--workers", "2", "--name", "late")["id"]
    status = user.wait_until_over(second)
    assert (status["state"], status["exit_code"]) == ("failed", 2)
    assert any("needs 2 CPUs, the cluster has 2, 0 free" in line for line in status["log_tail"]), status
    assert time.monotonic() - began < 90
    assert not (user.home / "runs" / "late").exists(), "nothing is left of a run that never began"
    assert user.run("cancel", first).code == 0


def test_no_secret_is_in_what_the_cluster_shows(user: User) -> None:
    """The token is in no argument, no log and no record."""
    token = (user.home / ".ray" / "auth_token").read_text().strip()
    for process in psutil.process_iter(["cmdline"]):
        assert token not in " ".join(process.info["cmdline"] or [])
    for job in user.json("list"):
        assert token not in user.run("logs", job["id"]).out
        assert token not in json.dumps(user.json("status", job["id"]))
    for path in (user.home / "runs").rglob("*"):
        if path.is_file() and os.path.getsize(path) < 2**20:
            assert token not in path.read_text(errors="replace")
