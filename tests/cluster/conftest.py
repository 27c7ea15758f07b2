"""One Ray session, with two processors, serves all tests of the cluster."""

import os
from collections.abc import Iterator

import pytest
from rich.console import Console

from cluster.ray_session import ray_session


@pytest.fixture(scope="session")
def ray_of_two() -> Iterator[None]:
    with ray_session(2):
        yield


@pytest.fixture(scope="session")
def console() -> Iterator[Console]:
    with open(os.devnull, "w") as nowhere:
        yield Console(file=nowhere)
