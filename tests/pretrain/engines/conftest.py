"""The workers of the engines' tests, each started once for all tests of this folder."""

from typing import Any

import pytest

from tests.pretrain.engines.workers import Runs, alone, alone_again, together
from tests.processes import run_workers


@pytest.fixture(scope="package")
def one() -> dict[str, Any]:
    return run_workers(1, alone, timeout=590)[0]


@pytest.fixture(scope="package")
def two(one: dict[str, Any]) -> dict[str, Any]:
    return run_workers(2, together, one["matrix"], timeout=590)[0]


@pytest.fixture(scope="package")
def shrunk(two: dict[str, Any]) -> Runs:
    return run_workers(1, alone_again, two["grown"], timeout=590)[0]
