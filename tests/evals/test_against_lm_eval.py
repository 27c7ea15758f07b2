"""Our log-likelihoods against those of EleutherAI's lm-evaluation-harness, of the same random weights.

`python -m benchmarks.evals_speed --full` compares every request.
"""

from collections.abc import Iterator

import pytest
import torch

from benchmarks import evals_speed
from tests.evals.benchmark_data import benchmark_data

pytest.importorskip("lm_eval", reason="the extra segue[lm-eval] is not installed")

TASKS = {"lambada": slice(24), "wsc273": slice(534, 558), "wikitext2": slice(9, 10), "wikitext2 paragraphs": slice(5)}
"""Of WSC273 partial requests, and whole sentences with no context; of WikiText-2 a text of several windows."""


@pytest.fixture(scope="module")
def contenders() -> Iterator[evals_speed.Contenders]:
    for name in ("gpt2_bpe", "lambada", "wsc273", "wikitext2"):
        if not (benchmark_data() / name).is_dir():
            pytest.skip(f"{benchmark_data() / name} is missing: set SEGUE_BENCHMARK_DATA to the benchmark texts")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield evals_speed.contenders(evals_speed.TINY)
    torch.set_num_threads(threads)


@pytest.mark.parametrize("task", TASKS)
def test_log_likelihoods_and_greedy_flags_are_those_of_the_harness(
    contenders: evals_speed.Contenders, task: str
) -> None:
    asked = evals_speed.requests()[task][TASKS[task]]
    answers = {name: ask(task, asked) for name, ask in contenders(4).items()}
    wanted = answers.pop(evals_speed.HARNESS)
    for name, found in answers.items():
        for (ours, greedy), (theirs, flag) in zip(found, wanted, strict=True):
            assert ours == pytest.approx(theirs, rel=1e-5), name
            assert greedy == flag, name
    assert len({round(total, 3) for total, _ in wanted}) > 1 or len(wanted) == 1, "requests that differ"
