"""One process that has imported everything serves all tests of the command line."""

from collections.abc import Iterator

import pytest

from tests.cli.command_line import Forks


@pytest.fixture(scope="session")
def segue() -> Iterator[Forks]:
    forks = Forks()
    yield forks
    forks.close()
