"""FAULTS 42: secrets in the environment, the arguments, the experiment and errors are written and shown nowhere."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from data_pipeline.config import BadInput, Refused
from data_pipeline.redaction import REDACTED, RedactedStream, redact, redact_values
from pretrain import config, run_directory
from pretrain.experiment import Experiment
from pretrain.metrics_log import MetricsLog
from pretrain.run_directory import refuse_changes
from tests.cli.command_line import LAUNCH, ROOT

ENVIRONMENT = "environment-secret-77"
IN_URL = "url-secret-78"
IN_ARGUMENT = "argument-secret-79"
IN_ERROR = "error-secret-80"
PARTS = ("environment-secret", "url-secret", "argument-secret", "error-secret")
VARIABLES = {**os.environ, "SERVICE_API_TOKEN": ENVIRONMENT, "PYTHONPATH": str(ROOT)}


def leaks(directory: Path, *outputs: str) -> list[str]:
    """Where any of the secrets stands."""
    files = [path for path in directory.rglob("*") if path.is_file()]
    found = [str(path) for path in files for part in PARTS if part.encode() in path.read_bytes()]
    return found + [output for output in outputs for part in PARTS if part in output]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("password=hunter2 steps=3", "password=<redacted> steps=3"),
        ("x: y api_key=abc,", "x: y api_key=<redacted>,"),
        ("ssh_private_key: /abc ~/x", "ssh_private_key: <redacted> ~/x"),
        ("--hf-token abc --steps 3", "--hf-token <redacted> --steps 3"),
        ('{"password": "a b\\"c", "x": 1}', '{"password": "<redacted>", "x": 1}'),
        ("{'clientSecret': 'a b', 'x': 1}", "{'clientSecret': '<redacted>', 'x': 1}"),
        ("os.environ['WANDB_API_KEY'] = 'abc'", "os.environ['WANDB_API_KEY'] = '<redacted>'"),
        ("s3://me:p@ss@bucket/x", "s3://<redacted>@bucket/x"),
        ("hf_" + "aB3" * 10, "<redacted>"),
        ("(ghp_" + "aB3" * 10 + ")", "(<redacted>)"),
        ("AKIA" + "ABCDEFGH" * 2, "<redacted>"),
        ("sk-proj-" + "aB3" * 10, "<redacted>"),
        ("xoxb-12345-67890-abcdef", "<redacted>"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl", "<redacted>"),
        ("Bearer abcdefghijkl", "Bearer <redacted>"),
        ("-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----", "<redacted>"),
    ],
)
def test_42_what_is_secret(text: str, expected: str) -> None:
    assert redact(text) == expected
    assert redact(expected) == expected


@pytest.mark.parametrize(
    "text",
    [
        "vocab_size=257 num_tokens=5 max_tokens: 7, tokens_per_second=3.2, tokenizer: byte",
        "end_of_text_token: eos, pad_token=pad, token=17",
        "train: 1,604 documents, 8,696,871 tokens",
        "http://localhost:6006/x@y data.tokenizer.kind: was 'byte', is now 'word'",
        "password: null, secret_file=a/b, token_length=9",
        "sk-learn-and-other-long-names",
        "ssh_private_key: ~/.ssh/id_ed25519",
    ],
)
def test_42_what_is_not(text: str) -> None:
    assert redact(text) == text


def test_42_values_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_PASSWORD", 'pass"word/1')
    monkeypatch.setenv("SHORT_TOKEN", "true")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "parallel")
    said = 'as is pass"word/1, in JSON pass\\"word/1, in a URL pass%22word%2F1; true parallel'
    assert redact(said) == f"as is {REDACTED}, in JSON {REDACTED}, in a URL {REDACTED}; true parallel"


def test_42_plain_values() -> None:
    values = {"a": [{"password": "x", "steps": 3}], "credentials": {"user": "bob", "ids": [123456]}, "rate": 0.5}
    assert redact_values(values) == {
        "a": [{"password": REDACTED, "steps": 3}],
        "credentials": {"user": REDACTED, "ids": [REDACTED]},
        "rate": 0.5,
    }


def test_42_a_stream_holds_back_what_comes_in_pieces() -> None:
    below = io.StringIO()
    stream = RedactedStream(below)
    for piece in ("before pass", "word=hun", "ter2", "\nno line end"):
        stream.write(piece)
    assert below.getvalue() == "before password=<redacted>\n"
    stream.flush()
    assert below.getvalue().endswith("\nno line end")


def test_42_metrics_and_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVICE_API_TOKEN", ENVIRONMENT)
    with MetricsLog(tmp_path, first_step=0, tensorboard=True) as log:
        log.write({"step": 1, "loss": 1.0, "unit": ENVIRONMENT, "players": {"model": {"note": f"key={ENVIRONMENT}"}}})
    run_directory.record_event(tmp_path, "lost", workers=[f"worker 1 raised {ENVIRONMENT}"], password=IN_ARGUMENT)
    assert leaks(tmp_path) == []
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["loss"] == 1.0


def named(name: str) -> Experiment:
    return config.load(Experiment, config.recipe_path("tiny_rbm"), (f"name={name}",))


def test_42_identity_is_compared_without_secrets() -> None:
    """A secret that was left out when saved fits any; all else must be the same."""
    saved = {"data": {"corpus": {"name": f"https://{REDACTED}@host/a"}}}
    refuse_changes(saved, {"data": {"corpus": {"name": f"https://me:{IN_URL}@host/a"}}}, (), "experiment")
    with pytest.raises(Refused) as refused:
        refuse_changes(saved, {"data": {"corpus": {"name": f"https://me:{IN_URL}@host/b"}}}, (), "experiment")
    assert IN_URL not in str(refused.value)


def test_42_what_was_left_out_must_be_given_again(tmp_path: Path) -> None:
    run_directory.create(tmp_path / "run", named(f"https://me:{IN_URL}@host"))
    with pytest.raises(BadInput, match=r"name held a secret, which is not saved; give it again: name=\.\.\."):
        run_directory.check_given(run_directory.read_experiment(tmp_path / "run"), tmp_path / "run")
    again = run_directory.read_experiment(tmp_path / "run", ("name=plain",))
    run_directory.check_given(again, tmp_path / "run")


def launched(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(LAUNCH), *map(str, arguments)], cwd=cwd, env=VARIABLES,
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def test_42_a_run_in_this_process(tmp_path: Path) -> None:
    """Secrets in the environment and in the experiment; then in arguments that are wrong."""
    name = f"name=from-https://me:{IN_URL}@host-{ENVIRONMENT}"
    dry = launched("train", "tiny_rbm", name, "--dry-run", cwd=tmp_path)
    done = launched("train", "tiny_rbm", name, "log.tensorboard=true", "--run", "run", cwd=tmp_path)
    wrong = launched("train", "tiny_rbm", f"hub_token={IN_ARGUMENT}", cwd=tmp_path)
    usage = launched("train", "tiny_rbm", f"--password={IN_ARGUMENT}", cwd=tmp_path)
    missing = launched("resume", f"no-{ENVIRONMENT}", cwd=tmp_path)
    codes = [result.returncode for result in (dry, done, wrong, usage, missing)]
    assert codes == [0, 0, 2, 2, 2], (dry, done, wrong, usage, missing)
    assert "name: from-https://<redacted>@host-<redacted>" in dry.stdout
    assert "hub_token" in wrong.stderr
    shown = [text for result in (dry, done, wrong, usage, missing) for text in (result.stdout, result.stderr)]
    in_checkpoints = [place for place in leaks(tmp_path, *shown) if "/checkpoints/" in place]
    assert [place for place in leaks(tmp_path, *shown) if place not in in_checkpoints] == []
    assert in_checkpoints == []


UNEXPECTED = f"""
import os, sys, launch
@launch.app.command()
def fail():
    raise RuntimeError("cannot log in with " + os.environ["SERVICE_API_TOKEN"] + ", password={IN_ERROR}")
sys.argv = ["launch.py", "fail"]
launch.main()
"""


def test_42_the_traceback_of_an_unexpected_error(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", UNEXPECTED], cwd=tmp_path, env=VARIABLES, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 1
    assert "RuntimeError: cannot log in with <redacted>, password=<redacted>" in done.stderr
    assert leaks(tmp_path, done.stdout, done.stderr) == []


DRIVER = f"""
import os, sys
from pathlib import Path
from cluster.terminal import console
from cluster.train import train
from data_pipeline.redaction import redact_standard_streams
from pretrain import config
from pretrain.experiment import Experiment

class FailOnce:
    def __init__(self, mark):
        self.mark = mark
    def __call__(self, moment, trainer):
        if moment == "update" and trainer.step == 3 and trainer.engine.group.leads and not os.path.exists(self.mark):
            open(self.mark, "w").close()
            print("logged in with " + os.environ["SERVICE_API_TOKEN"])
            raise RuntimeError("cannot log in with " + os.environ["SERVICE_API_TOKEN"] + ", password={IN_ERROR}")

redact_standard_streams()
recipe = config.load(Experiment, config.recipe_path("tiny_rbm"), ("name=at-" + os.environ["SERVICE_API_TOKEN"],))
train(recipe, Path("run"), workers=2, console=console(), injector=FailOnce(os.path.abspath("mark")))
"""


@pytest.mark.slow
def test_42_workers_and_their_errors(tmp_path: Path) -> None:
    """A worker raises with secrets in its error: in its log, in the event and on the screen they are left out."""
    done = subprocess.run(
        [sys.executable, "-c", DRIVER], cwd=tmp_path, env=VARIABLES, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done
    log = (tmp_path / "run" / "logs" / "worker-0.log").read_text()
    assert "logged in with <redacted>\n" in log
    assert "RuntimeError: cannot log in with <redacted>, password=<redacted>" in log
    assert "cannot log in with <redacted>" in (tmp_path / "run" / "events.jsonl").read_text()
    found = leaks(tmp_path, done.stdout, done.stderr)
    assert [place for place in found if "/checkpoints/" not in place] == []
    assert found == []
