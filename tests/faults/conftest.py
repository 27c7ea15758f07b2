"""One undisturbed run is what the runs that lose workers must equal."""

from pathlib import Path

import pytest
from rich.console import Console

from cluster.train import train
from tests.faults.workers import STEPS, experiment, kinds


@pytest.fixture(scope="session")
def undisturbed(ray_of_two: None, console: Console, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    assert train(experiment(), run, workers=2, console=console) == STEPS
    assert kinds(run) == ["started", "finished"]
    return run
