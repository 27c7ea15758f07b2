"""Finds the public benchmark texts, where this machine has them."""

import gzip
import os
from pathlib import Path

import pytest

from tests.data_pipeline.corpora import SHARED_DATA

VARIABLE = "SEGUE_BENCHMARK_DATA"


def benchmark_data() -> Path:
    """The directory that holds a folder for each benchmark."""
    return Path(os.environ.get(VARIABLE) or SHARED_DATA)


def benchmark_text(name: str) -> str:
    """The text of a file such as `ptb/ptb.test.txt`, kept as it is or with gzip; skips the test where there is none."""
    path = benchmark_data() / name
    packed = path.with_name(path.name + ".gz")
    if packed.is_file():
        return gzip.decompress(packed.read_bytes()).decode("utf-8")
    if path.is_file():
        return path.read_bytes().decode("utf-8")
    return pytest.skip(
        f"neither {path} nor {packed.name} beside it: set {VARIABLE} to the directory of the benchmark texts"
    )
