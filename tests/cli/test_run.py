"""Runs from start to end by their commands: stopping, going on, refusing, failing."""

import json
import os
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from pretrain.checkpoint import list_checkpoints
from pretrain.run_directory import read_events
from tests.cli.command_line import Forks, ended, files_below, started, wait_for_step

XL = "tiny_transformer_xl"
STEPS = 60
LONG = (XL, f"steps={STEPS}", "checkpoint.every=25", "log.every=20", "evaluate.every=null")


def events(run: Path) -> list[str]:
    return [json.loads(line)["event"] for line in (run / "events.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def undisturbed(segue: Forks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The long run, finished, as no test may change it."""
    place = tmp_path_factory.mktemp("undisturbed")
    result = segue.run("train", *LONG, "--run", "run", cwd=place)
    assert (result.code, result.err) == (0, "")
    assert [line.split()[:2] for line in result.out.splitlines()[:3]] == [["step", f"{s}/60"] for s in (20, 40, 60)]
    assert result.out.splitlines()[-1].startswith("finished at step 60: run")
    return place / "run"


def test_stopped_then_resumed_equals_undisturbed(segue: Forks, tmp_path: Path, undisturbed: Path) -> None:
    """SIGTERM saves at the step boundary with code 5; meanwhile a second job is refused with code 3."""
    run = tmp_path / "run"
    with started("train", *LONG, "--run", run, cwd=tmp_path) as process:
        wait_for_step(run, 1, process)
        process.send_signal(signal.SIGSTOP)
        for verb in (["resume", run], ["train", XL, "--run", run]):
            refused = segue.run(*verb, cwd=tmp_path)
            assert refused.code == 3
            assert str(run) in refused.one_message()
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGCONT)
        stopped = ended(process)
    assert stopped.code == 5, stopped
    assert "stopped: as asked after step" in stopped.err
    assert "error" not in stopped.err
    assert "Traceback" not in stopped.err
    assert events(run) == ["started", "preempted"]
    assert not (run / "lease.json").exists()
    resumed = segue.run("resume", run, cwd=tmp_path)
    assert resumed.code == 0, resumed
    assert events(run) == ["started", "preempted", "resumed", "finished"]
    compared = segue.run("checkpoints", "compare", run, undisturbed, cwd=tmp_path)
    assert (compared.code, compared.out.split(":")[0]) == (0, "equal in every bit")
    losses = [[json.loads(line)["loss"] for line in (r / "metrics.jsonl").open()] for r in (run, undisturbed)]
    assert losses[0] == losses[1]


def test_sigterm_to_the_whole_process_group_saves_too(tmp_path: Path) -> None:
    """As `timeout`, systemd and Slurm send it: Ray's servers must outlast it until the workers have saved."""
    run = tmp_path / "run"
    with started("train", XL, "steps=100000", "--run", run, "--workers", 2, cwd=tmp_path) as process:
        wait_for_step(run, 3, process)
        os.killpg(process.pid, signal.SIGTERM)
        result = ended(process)
    assert result.code == 5, result
    assert events(run) == ["started", "preempted"]
    assert read_events(run)[-1]["step"] == max(info.step for info in list_checkpoints(run))
    assert list((run / "checkpoints").glob("step-*"))


def test_second_interrupt_ends_at_once(tmp_path: Path) -> None:
    """In a step that takes seconds, in many micro-batches: a signal is heard after each call into torch."""
    run = tmp_path / "run"
    slow = ("batch.micro_batches=50", "batch.rows=16", "data.num_documents=4000", "model.num_layers=8")
    with started("train", XL, *slow, "evaluate.every=null", "--run", run, cwd=tmp_path) as process:
        wait_for_step(run, 1, process)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert "Ctrl-C now ends it at once" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        result = ended(process)
    assert result.code == 130, result
    assert "interrupted" in result.one_message()
    assert events(run) == ["started", "interrupted"]
    assert not (run / "checkpoints").exists()
    assert not (run / "lease.json").exists()


def test_resume_of_a_changed_experiment_is_refused(segue: Forks, tmp_path: Path, undisturbed: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(undisturbed, run)
    before = (run / "experiment.yaml").read_bytes()
    refused = segue.run("resume", run, "optimizer.learning_rate=0.5", "steps=64", cwd=tmp_path)
    assert refused.code == 3
    message = refused.one_message()
    assert "optimizer.learning_rate: was 0.01, is now 0.5" in message
    assert "steps: was 60, is now 64" in message
    assert (run / "experiment.yaml").read_bytes() == before
    allowed = segue.run("resume", run, "steps=64", "--allow", "steps", cwd=tmp_path)
    assert allowed.code == 0, allowed
    assert "finished at step 64" in allowed.out


def test_resume_of_a_finished_run_says_so(segue: Forks, tmp_path: Path, undisturbed: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(undisturbed, run)
    before = files_below(run)
    again = segue.run("resume", run, "log.every=1", cwd=tmp_path)
    assert again.code == 0, again
    assert f"{run} is finished already, at step 60" in again.out
    assert f"resume {run} steps=... --allow steps" in again.out
    assert files_below(run) == before


def test_corrupt_checkpoints(segue: Forks, tmp_path: Path, undisturbed: Path) -> None:
    """A flipped bit is found by every verb that reads; `resume` goes back by one, and ends with 4 at the last."""
    run = tmp_path / "run"
    shutil.copytree(undisturbed, run)
    assert segue.run("checkpoints", "verify", run, cwd=tmp_path).code == 0
    newest, *older = sorted(run.glob("checkpoints/step-*"), reverse=True)
    flip_a_bit(newest / "worker-00000.safetensors")
    verified = segue.run("checkpoints", "verify", run, cwd=tmp_path)
    assert verified.code == 4
    assert newest.name in verified.one_message()
    resumed = segue.run("resume", run, cwd=tmp_path)
    assert resumed.code == 0, resumed
    assert "fallback" in events(run)
    assert segue.run("checkpoints", "compare", run, undisturbed, cwd=tmp_path).code == 0
    for path in sorted(run.glob("checkpoints/step-*")):
        flip_a_bit(path / "worker-00000.safetensors")
    for verb in (["resume", run], ["sample", run, "--prompt", "1"], ["checkpoints", "compare", run, undisturbed]):
        result = segue.run(*verb, cwd=tmp_path)
        assert result.code == 4, (verb, result)
        result.one_message()
    assert older


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)


def test_different_checkpoints(segue: Forks, tmp_path: Path, undisturbed: Path) -> None:
    earlier = undisturbed / "checkpoints" / "step-000000050"
    compared = segue.run("checkpoints", "compare", undisturbed, earlier, cwd=tmp_path)
    assert compared.code == 1
    assert "step: 60 in a, 50 in b" in compared.out
    listed = segue.run("checkpoints", "list", undisturbed, cwd=tmp_path)
    rows = [line.split() for line in listed.out.splitlines() if "KiB" in line]
    assert [(row[1], "newest" in row) for row in rows] == [("50", False), ("60", True)]


def test_numbers_that_are_not_finite_are_shown_and_end_with_code_6(segue: Forks, tmp_path: Path) -> None:
    """Every step is shown, and every one is skipped, until there are too many."""
    overrides = ("optimizer.learning_rate=1e30", "steps=30", "log.every=1", "evaluate.every=1")
    result = segue.run("train", XL, *overrides, "--run", "run", cwd=tmp_path)
    assert result.code == 6
    assert "loss not finite nats/token" in result.out
    assert "10 turns in a row moved nothing" in result.err
    assert "Traceback" not in result.err


def test_fewer_steps_than_the_run_has_taken(segue: Forks, tmp_path: Path, undisturbed: Path) -> None:
    result = segue.run("resume", undisturbed, "steps=30", "--allow", "steps", cwd=tmp_path)
    assert result.code == 2
    assert "steps=30: the run has reached step 60 already" in result.err


@pytest.mark.slow
def test_gives_up_with_code_6(tmp_path: Path) -> None:
    """Workers that are killed again and again, before there is a checkpoint."""
    run = tmp_path / "run"
    with started("train", XL, "steps=100000", "--run", run, "--workers", "2", cwd=tmp_path) as process:
        while process.poll() is None:
            kill_workers(process)
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.3)
        result = ended(process)
    assert result.code == 6, result
    assert "gave up after 3 failures in a row without a checkpoint further on" in result.err
    assert "Traceback" not in result.err
    assert events(run) == ["lost"] * 3 + ["gave_up"]
    assert not (run / "lease.json").exists()


def kill_workers(driver: subprocess.Popen[str]) -> None:
    """Kill the workers that already have a place, by their own process numbers."""
    try:
        below = psutil.Process(driver.pid).children(recursive=True)
        for process in below:
            if process.name().startswith("ray::Worker"):
                process.kill()
    except psutil.NoSuchProcess:
        return
