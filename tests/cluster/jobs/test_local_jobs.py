"""The verbs for jobs on this machine: real processes, that outlive the command that submits them."""

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from cluster.jobs.local_jobs import kept_environment
from pretrain.config import recipe_path
from tests.cluster.jobs.command import SLOW, User
from tests.faults.workers import assert_gone, assert_same_bits, events, kinds, wait_until

TINY = "tiny_transformer_xl"


@pytest.fixture
def user(tmp_path: Path) -> User:
    return User(tmp_path)


def processes_of(user: User, job: str) -> list[psutil.Process]:
    """The job's shell, and all below it."""
    owner = json.loads((user.home / ".local/state/segue/jobs" / job / "owner.json").read_text())
    shell = psutil.Process(owner["pid"])
    return [shell, *shell.children(recursive=True)]


def is_told_to_end(process: psutil.Process) -> bool:
    """Whether SIGTERM waits for a process that is stopped."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    (pending,) = (int(line.split()[1], 16) for line in lines if line.startswith("ShdPnd:"))
    return bool(pending >> (signal.SIGTERM - 1) & 1)


def test_a_job_is_submitted_followed_and_told_of(user: User) -> None:
    submitted = user.json("submit", TINY, "steps=6", "--name", "mine")
    job = submitted["id"]
    assert submitted["run"] == str(user.home / "runs" / "mine")
    assert submitted["code_files"] > 100
    assert submitted["unchecked"] is None
    followed = user.run("logs", job, "--follow")
    assert followed.code == 0
    assert "finished at step 6" in followed.out
    status = user.json("status", job)
    assert (status["state"], status["exit_code"], status["step"], status["steps"]) == ("succeeded", 0, 6, 6)
    assert status["loss"] > 0
    assert [row["id"] for row in user.json("list")] == [job]
    told = user.run("status", job).out
    assert "succeeded (exit code 0)" in told
    assert "step       6 of 6" in told
    assert user.run("logs", job).out == followed.out
    first = events(user.home / "runs" / "mine")[0]
    assert (first["event"], first["job"], first["dirty"]) == ("submitted", job, bool(submitted["dirty"]))
    assert "is over already: succeeded" in user.run("cancel", job).out


@pytest.mark.slow
def test_a_cancelled_job_has_saved_and_is_resumed_to_the_same_end(user: User) -> None:
    """While it runs, nobody else is let at its run; whether it was interrupted makes no difference."""
    job = user.json("submit", TINY, "steps=150", *SLOW, "--name", "cut")["id"]
    user.wait_for_step(job, 3)
    held = processes_of(user, job)
    for process in held:  # so that it is not over by the time that the commands have come
        process.suspend()
    second = user.run("submit", TINY, "steps=150", *SLOW, "--name", "cut")
    assert second.code == 3
    assert f"job {job} is running on" in second.one_message()
    with ThreadPoolExecutor() as threads:
        cancelling = threads.submit(user.run, "cancel", job)
        wait_until(lambda: all(is_told_to_end(process) for process in held), 120, "SIGTERM")
        for process in held:
            process.resume()
        cancelled = cancelling.result()
    assert cancelled.code == 0
    assert f"job {job} is over: stopped" in cancelled.out
    pids = [process.pid for process in held]
    assert_gone(pids)
    status = user.json("status", job)
    assert (status["state"], status["exit_code"]) == ("stopped", 5)
    assert 3 <= status["step"] < 150
    resumed = user.json("resume", job)["id"]
    assert user.run("logs", resumed, "--follow").code == 0
    assert kinds(user.home / "runs" / "cut") == [
        "submitted",
        "started",
        "preempted",
        "submitted",
        "resumed",
        "finished",
    ]
    whole = user.json("submit", TINY, "steps=150", *SLOW, "--name", "whole")["id"]
    assert user.wait_until_over(whole)["state"] == "succeeded"
    assert_same_bits(user.home / "runs" / "cut", user.home / "runs" / "whole")


@pytest.mark.slow
def test_a_killed_job_is_lost_and_submitted_again_finds_its_run_by_name(user: User) -> None:
    job = user.json("submit", TINY, "steps=40", *SLOW, "checkpoint.every=2", "--name", "fallen")["id"]
    user.wait_for_step(job, 5)
    for process in processes_of(user, job):
        process.kill()
    assert user.wait_until_over(job)["state"] == "lost"
    again = user.json("submit", TINY, "steps=40", *SLOW, "checkpoint.every=2", "--name", "fallen")["id"]
    assert user.wait_until_over(again)["state"] == "succeeded"
    run = user.home / "runs" / "fallen"
    assert kinds(run) == ["submitted", "started", "submitted", "resumed", "finished"]
    assert events(run)[3]["step"] >= 2
    assert [row["state"] for row in user.json("list")] == ["succeeded", "lost"]
    other = user.run("submit", TINY, "steps=40", *SLOW, "seed=1", "--name", "fallen")
    assert other.code == 3
    assert "seed: was 0, is now 1" in other.one_message()


@pytest.mark.slow
def test_a_job_that_fails_shows_how(user: User) -> None:
    """What only the job itself can find out: here, that its run directory cannot be made."""
    job = user.json("submit", TINY, "steps=4", "--name", "there")["id"]
    assert user.wait_until_over(job)["state"] == "succeeded"
    run = user.home / "runs" / "there"
    newest = sorted((run / "checkpoints").iterdir())[-1]
    for path in newest.glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:-9])
    again = user.json("resume", job, "steps=6", "--allow", "steps")["id"]
    status = user.wait_until_over(again)
    assert (status["state"], status["exit_code"]) == ("failed", 4)
    assert any("none of its checkpoints is good" in line for line in status["log_tail"])
    assert user.run("logs", again, "--follow").code == 4, "the job's own exit code"


@pytest.mark.slow
def test_jobs_of_preparation_go_on_where_they_were(user: User) -> None:
    text = user.home / "corpus"
    text.mkdir()
    for number in range(200):
        (text / f"{number}.txt").write_text(f"The {number}. of some short texts, about nothing in particular. " * 5)
    recipe = user.home / "mine.yaml"
    recipe.write_text(recipe_path("quickstart").read_text())
    corpus = "data.corpus={kind: files, directory: corpus, train: ['*.txt'], document: file}"
    changes = (corpus, "data.tokenizer.vocab_size=300", "data.directory=data/mine", "model.vocab_size=300")
    job = user.json("prepare", recipe, *changes, "--name", "mine")["id"]
    status = user.wait_until_over(job)
    assert (status["state"], status["kind"], status["run"]) == ("succeeded", "prepare", None), status
    assert (user.home / "data" / "mine" / "manifest.json").is_file()
    refused = user.run("resume", job)
    assert refused.code == 2
    assert "submit it again with `prepare`" in refused.one_message()


BAD = {
    "unknown recipe": (["submit", "tiny_transformer_xk"], 2, ["did you mean 'tiny_transformer_xl'"]),
    "unknown key": (["submit", TINY, "stepz=3"], 2, ["stepz", "did you mean 'steps'"]),
    "workers that do not divide": (["submit", TINY, "--workers", "3"], 2, ["workers=3", "batch.micro_batches=2"]),
    "both shapes": (["submit", TINY, "--workers", "2", "--nodes", "2"], 2, ["--workers", "--workers-per-node"]),
    "no nodes": (["submit", TINY, "--nodes", "0"], 2, ["--nodes 0", "1 or more"]),
    "nodes of nothing": (["submit", TINY, "--workers-per-node", "2"], 2, ["--workers-per-node", "--nodes N"]),
    "name": (["submit", TINY, "--name", "../mine"], 2, ["--name '../mine'", "letters, digits"]),
    "storage": (["submit", TINY, "--storage", "none"], 2, ["--storage", "no such directory"]),
    "name of a variable": (["submit", TINY, "--env", "=3"], 2, ["--env ''", "no name of a variable"]),
    "accelerator": (["submit", TINY, "--accelerator", "H100"], 2, ["--accelerator H100", "this machine"]),
    "more machines": (["submit", TINY, "--nodes", "2"], 2, ["--nodes 2", "this machine alone"]),
    "environment": (["submit", TINY, "--env", "NOT_SET_HERE"], 2, ["--env NOT_SET_HERE", "is not set"]),
    "unknown job": (["status", "nobody"], 2, ["job 'nobody'", "none with this id"]),
    "log of none": (["logs", "nobody"], 2, ["job 'nobody'"]),
    "cancel none": (["cancel", "nobody"], 2, ["job 'nobody'"]),
    "resume none": (["resume", "nobody"], 2, ["job 'nobody'"]),
    "id outside": (["status", "../jobs"], 2, ["none with this id"]),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "code", "named"), BAD.values(), ids=BAD)
def test_bad_input(user: User, arguments: list[str], code: int, named: list[str]) -> None:
    ended = user.run(*arguments)
    assert ended.code == code, ended
    message = ended.one_message()
    for word in named:
        assert word in message
    assert not (user.home / ".local/state/segue/jobs").exists(), "nothing was handed over"
    assert not (user.home / "runs").exists()


def test_a_recipe_with_a_secret_is_not_handed_over(user: User) -> None:
    secret = "hf_" + "a1" * 12
    ended = user.run("submit", TINY, f"name={secret}")
    assert ended.code == 2
    message = ended.one_message()
    assert "name: holds a secret" in message
    assert secret not in message
    assert not (user.home / ".local").exists()


def test_the_address_may_be_left_to_the_environment(user: User) -> None:
    user.variables["SEGUE_ADDRESS"] = "local"
    ended = User(user.home, "local", user.variables).run("list")
    assert (ended.code, ended.out) == (0, "no jobs at local\n")


@pytest.mark.slow
def test_a_job_gets_no_secret_of_the_environment(user: User) -> None:
    secret, plain = "".join(reversed("4321-hsifdrows")), "of-no-importance"  # this file is packed, too
    user.variables |= {"WANDB_API_KEY": secret, "HF_TOKEN": secret, "EDITOR": plain, "OMP_WAIT_POLICY": "passive"}
    job = user.json("submit", TINY, "steps=60", *SLOW, "--env", "MINE=yes")["id"]
    user.wait_for_step(job, 1)
    environments = [process.environ() for process in processes_of(user, job)]
    assert len(environments) >= 2
    for environment in environments:
        assert {environment["OMP_WAIT_POLICY"], environment["MINE"]} == {"passive", "yes"}
        assert not {secret, plain} & set(environment.values())
    assert user.run("cancel", job).code == 0
    assert secret not in "".join(
        path.read_text(errors="replace") for path in (user.home / ".local").rglob("*") if path.is_file()
    )


def test_what_is_kept_of_an_environment_is_no_secret() -> None:
    given = {
        "PATH": "/bin",
        "RAY_AUTH_TOKEN": "x",
        "RAY_AUTH_TOKEN_PATH": "/t",
        "AWS_SECRET_ACCESS_KEY": "y",
        "FOO": "z",
    }
    assert kept_environment(given) == {"PATH": "/bin", "RAY_AUTH_TOKEN_PATH": "/t"}


@pytest.mark.slow
def test_two_signals_at_once_end_it_as_one(user: User) -> None:
    """A SIGTERM to the group, as schedulers send it, and `cancel`."""
    job = user.json("submit", TINY, "steps=60", *SLOW)["id"]
    user.wait_for_step(job, 2)
    os.killpg(processes_of(user, job)[0].pid, signal.SIGTERM)
    assert user.run("cancel", job).code == 0
    assert user.json("status", job)["state"] == "stopped"
