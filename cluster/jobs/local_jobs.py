"""Jobs on this machine, without a cluster: a process of its own each, that goes on when the terminal is closed.

jobs/<id>/: job.json, code/ (unpacked), log, owner.json (the process), exit_code once it is over
"""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from zipfile import ZipFile

from cluster.jobs.job_state import STATES, JobState, Submission
from cluster.jobs.package import Package
from cluster.user_state import user_state
from data_pipeline.config import BadInput
from data_pipeline.redaction import redact
from pretrain.config import nearest
from pretrain.owner import Owner, decode, encode

KEPT_NAMES = frozenset(
    ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "TZ", "TMPDIR", "TERM", "VIRTUAL_ENV", "LD_LIBRARY_PATH")
)
KEPT_BEGINNINGS = (
    *("LC_", "XDG_", "OMP_", "MKL_", "CUDA_", "NVIDIA_", "NCCL_", "GLOO_", "TORCH_", "TRITON_", "HF_", "SEGUE_"),
    *("RAY_", "SSL_CERT_", "REQUESTS_CA_", "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY"),
)
POLL_SECONDS = 0.2

SHELL = """trap : TERM INT USR1
{command}
echo $? > {place}/exit_code.partial
mv {place}/exit_code.partial {place}/exit_code
"""
"""Signals to the whole group reach the command; the shell stays to write down how it ended."""


class LocalJobs:
    """See `Jobs`."""

    def __init__(self, place: Path | None = None) -> None:
        self.place = place or user_state() / "jobs"

    def submit(self, submission: Submission, package: Package, environment: dict[str, str]) -> None:
        place = self.place / submission.id
        try:
            self.place.mkdir(mode=0o700, parents=True, exist_ok=True)
            (place / "code").mkdir(parents=True)
        except OSError as error:
            raise BadInput(f"{place}: jobs of this machine are kept there, and it cannot be made: {error}") from error
        with ZipFile(package.path) as archive:
            archive.extractall(place / "code")
        self._start(place, submission.command, environment)
        (place / "job.json").write_text(json.dumps(asdict(submission), indent=2))  # last: by then its process is known

    def _start(self, place: Path, command: str, environment: dict[str, str]) -> None:
        python = Path(sys.executable).parent
        kept = kept_environment(dict(os.environ)) | environment
        kept["PATH"] = f"{python}{os.pathsep}{kept.get('PATH', os.defpath)}"
        kept["PYTHONPATH"] = str(place / "code")
        script = SHELL.format(command=command, place=shlex.quote(str(place)))
        with (place / "log").open("ab") as log:
            process = subprocess.Popen(
                ["/bin/sh", "-c", script],
                cwd=place / "code",
                env=kept,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        (place / "owner.json").write_text(encode(Owner.of(process.pid, place.name), 0))

    def all(self) -> list[JobState]:
        places = sorted(self.place.glob("*/job.json"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
        return [self._state(path.parent) for path in places]

    def get(self, job: str) -> JobState:
        place = self.place / job
        if "/" in job or not (place / "job.json").is_file():
            known = [path.parent.name for path in self.place.glob("*/job.json")]
            raise BadInput(f"job {job!r}: there is none with this id on this machine{nearest(job, known)}")
        return self._state(place)

    def _state(self, place: Path) -> JobState:
        submission = Submission(**json.loads((place / "job.json").read_text()))
        lives = self._lives(place)  # before the exit code is looked for: it may end in between
        with suppress(OSError, ValueError):
            code = int((place / "exit_code").read_text())
            return JobState(submission, STATES.get(code, "failed"), code)
        return JobState(submission, "running" if lives else "lost", None)

    def _lives(self, place: Path) -> bool:
        owner = self._owner(place)
        return owner is not None and owner.is_near and owner.lives

    def _owner(self, place: Path) -> Owner | None:
        with suppress(OSError):
            found = decode((place / "owner.json").read_bytes())
            return found[0] if found else None
        return None

    def log(self, job: str) -> str:
        self.get(job)
        return (self.place / job / "log").read_text(errors="replace")

    def follow(self, job: str) -> Iterator[str]:
        self.get(job)
        with (self.place / job / "log").open(errors="replace") as log:
            while True:
                over = self.get(job).is_over  # before the last look at the log
                text = log.read()
                if text:
                    yield text
                if over:
                    return
                time.sleep(POLL_SECONDS)

    def stop(self, job: str) -> None:
        owner = self._owner(self.place / job)
        if owner is not None and owner.is_near and owner.lives:
            with suppress(ProcessLookupError):
                os.killpg(owner.pid, signal.SIGTERM)


def kept_environment(environment: dict[str, str]) -> dict[str, str]:
    """What a job is given of the environment that it is submitted from: no secret, and nothing unknown.

    >>> kept_environment({"HOME": "/home/me", "HF_TOKEN": "hf_x", "HF_HOME": "/models", "EDITOR": "ed"})
    {'HOME': '/home/me', 'HF_HOME': '/models'}
    """
    return {
        name: value
        for name, value in environment.items()
        if (name in KEPT_NAMES or name.startswith(KEPT_BEGINNINGS)) and redact(f"{name}={value}") == f"{name}={value}"
    }
