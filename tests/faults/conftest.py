"""One Ray session, with two processors, serves the tests of workers; one undisturbed run is what others must equal."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from cluster.ray_session import ray_session
from cluster.train import train
from tests.faults.workers import STEPS, experiment, kinds


@pytest.fixture(scope="session")
def ray_of_two() -> Iterator[None]:
    with ray_session(2):
        yield


@pytest.fixture(scope="session")
def console() -> Iterator[Console]:
    with open(os.devnull, "w") as nowhere:
        yield Console(file=nowhere)


@pytest.fixture(scope="session")
def undisturbed(ray_of_two: None, console: Console, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    assert train(experiment(), run, workers=2, console=console) == STEPS
    assert kinds(run) == ["started", "finished"]
    return run
