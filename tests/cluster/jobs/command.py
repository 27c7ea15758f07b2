"""A user's command line, with jobs of his own."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pretrain.metrics_log import last_step
from tests.cli.command_line import LAUNCH, ROOT, Ended
from tests.processes import of_this_test

WAIT_SECONDS = 120.0
SLOW = ("batch.rows=16", "model.num_layers=12", "evaluate.every=null", "checkpoint.every=25")
"""Steps that are slow enough to be interrupted."""


@dataclass
class User:
    """Somebody with a home directory, whose jobs go to one address."""

    home: Path
    address: str = "local"
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        own = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "XDG_", "SEGUE_"))}
        return {
            **own,
            "HOME": str(self.home),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
            **of_this_test(),
            **self.variables,
        }

    def run(self, verb: str, *arguments: object, timeout: float = WAIT_SECONDS) -> Ended:
        """`segue VERB ... --address ADDRESS`, to its end."""
        command = [sys.executable, str(LAUNCH), verb, *map(str, arguments), "--address", self.address]
        done = subprocess.run(
            command, cwd=self.home, env=self.environment, capture_output=True, text=True, timeout=timeout
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    def json(self, verb: str, *arguments: object) -> Any:
        ended = self.run(verb, *arguments, "--json")
        assert ended.code == 0, ended
        return json.loads(ended.out)

    def wait_for_step(self, job: str, step: int) -> None:
        """Until it has done so many steps; looked for in the run's directory, for a command would take longer."""
        deadline = time.monotonic() + WAIT_SECONDS
        run = Path(self.json("status", job)["run"])
        while not (run.exists() and last_step(run) >= step):
            assert time.monotonic() < deadline, self.json("status", job)
            time.sleep(0.05)

    def wait_until_over(self, job: str) -> dict[str, Any]:
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            status: dict[str, Any] = self.json("status", job)
            if status["state"] not in ("pending", "running"):
                return status
            assert time.monotonic() < deadline, status
            time.sleep(0.3)
