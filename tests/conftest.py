"""Every test process computes with one thread: on few cores more threads are slower, and sums round differently.

Kernels run compiled where there is a GPU, and in Triton's interpreter where there is none.
"""

import os
from collections.abc import Iterator

os.environ["OMP_NUM_THREADS"] = "1"

from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:
    from rich.console import Console

torch.set_num_threads(1)
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before the first kernel is defined


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def ray_of_two() -> Iterator[None]:
    """One Ray, with two processors, serves all tests that place workers."""
    from cluster.ray_session import ray_session

    with ray_session(2):
        yield


@pytest.fixture(scope="session")
def console() -> Iterator["Console"]:
    """What is said to it goes nowhere."""
    from rich.console import Console

    with open(os.devnull, "w") as nowhere:
        yield Console(file=nowhere)
