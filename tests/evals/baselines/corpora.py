"""Where the benchmark corpora are that some tests read, and random small ones."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from evals.baselines.baseline import Ids

BESIDE_THE_REPOSITORY = Path(__file__).parents[4] / "shared" / "data"


def corpus_file(name: str) -> Path:
    """A file such as ptb/ptb.train.txt.gz; the test is skipped where it is not."""
    root = Path(os.environ.get("SEGUE_BENCHMARK_DATA", BESIDE_THE_REPOSITORY))
    path = root / name
    if not path.exists():
        pytest.skip(f"no {path}: set SEGUE_BENCHMARK_DATA to the folder that has {name}")
    return path


@dataclass(frozen=True)
class SmallCorpus:
    """Random ids over few tokens, some of them frequent."""

    seed: int
    order: int
    vocabulary_size: int
    num_tokens: int
    end_of_line: int | None

    def ids(self) -> Ids:
        """The training text; its last token never occurs."""
        random = np.random.default_rng(self.seed)
        weights = random.dirichlet(np.full(self.vocabulary_size - 1, 0.5)) + 0.02
        return random.choice(self.vocabulary_size - 1, self.num_tokens, p=weights / weights.sum())

    def unseen_text(self) -> Ids:
        """Another text, over all tokens, with ends of lines."""
        return np.random.default_rng(self.seed + 1000).integers(0, self.vocabulary_size, 60)


SMALL_CORPORA = [
    SmallCorpus(seed, order, vocabulary_size, num_tokens, end_of_line)
    for seed, (order, vocabulary_size, num_tokens, end_of_line) in enumerate(
        [
            (1, 5, 40, 0),
            (1, 60, 150, None),
            (2, 3, 2, None),
            (2, 4, 30, 0),
            (2, 12, 400, 2),
            (3, 4, 1, 0),
            (3, 5, 120, None),
            (3, 8, 500, 0),
            (4, 6, 300, 1),
            (5, 4, 5, 0),
            (5, 5, 200, 0),
            (5, 6, 900, None),
        ]
    )
]
