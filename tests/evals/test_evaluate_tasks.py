"""Tasks under a run's checkpoint: the same numbers for any batch and any number of workers, and after a kill."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from cluster.sampling import keep_tokenizer
from data_pipeline.config import BadInput
from evals.benchmark_table import GPT2_TABLE, Column, Report, measured
from evals.evaluate_tasks import TaskResult, evaluate_tasks
from evals.results_file import ResultsFile
from evals.targets import Target
from evals.tasks.data import DataSource
from tests.evals.runs import finished_run, prepared_text
from tests.evals.tasks.fakes import folder_with

BFLOAT16 = "_bfloat16"
WORDS = ("memory", "carries", "on", "segue", "é", "the", "never")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two models of bytes, each in two dtypes, and the files of tasks."""
    place = tmp_path_factory.mktemp("tasks")
    text = prepared_text(place)
    for name, more in (("tiny_gpt", ["model.context_length=64"]), ("tiny_transformer_xl", [])):
        for run, precision in ((place / name, "float32"), (place / f"{name}{BFLOAT16}", "bfloat16")):
            of_bytes = (text, "model.vocab_size=257", "model.initial_std=0.3", f"engine.precision={precision}")
            keep_tokenizer(finished_run(run, name, *of_bytes, *more, steps=2), run)
    generator = np.random.default_rng(0)
    rows = [" ".join(generator.choice(WORDS, size=generator.integers(3, 15))) for _ in range(23)]
    (place / "data" / "lambada").mkdir(parents=True)
    content = "".join(json.dumps({"text": row}) + "\n" for row in rows)
    (place / "data" / "lambada" / "lambada_test.jsonl").write_text(content)
    (place / "data" / "ptb").mkdir()
    (place / "data" / "ptb" / "ptb.test.txt").write_text("".join(f" {row} \n" for row in 4 * rows))
    write_the_others(place / "data", generator)
    return place


def write_the_others(data: Path, generator: np.random.Generator) -> None:
    """A file of every other kind of task."""

    def words(count: int) -> str:
        return " ".join(generator.choice(WORDS, size=count))

    winograd = [
        {"txt1": words(4), "pron": "it", "txt2": words(3), "options": ["memory", "the segue"], "label": k % 2}
        for k in range(9)
    ]
    choices = [{"context": words(5), "options": [words(1), words(3), words(2)], "label": k % 3} for k in range(9)]
    candidates = [f"{first} {second}" for first in WORDS[:5] for second in WORDS[:2]]
    question = "".join(f"{k} {words(3)}\n" for k in range(1, 21))
    question += f"21 {words(2)} XXXXX {words(2)}\t{candidates[3]}\t\t{'|'.join(candidates)}\n\n"
    for name, content in (
        ("wsc273/wsc273.jsonl", "".join(json.dumps(row) + "\n" for row in winograd)),
        ("piqa/piqa.jsonl", "".join(json.dumps(row) + "\n" for row in choices)),
        ("cbt/cbtest_CN_valid_2000ex.txt", 3 * question),
        ("enwik8/enwik8", "".join(f"<page>{words(6)}</page>\n" for _ in range(40))),
        ("text8/text8", words(300).replace("é", "e")),
        ("wikitext2/wiki.test.tokens", " \n" + "".join(f" = {words(2)} = \n {words(30)} . \n" for _ in range(9))),
        ("one_billion_word/news.en.heldout-00000-of-00050", "".join(words(6) + " .\n" for _ in range(9))),
    ):
        (data / name).parent.mkdir(exist_ok=True)
        (data / name).write_text(content)


OTHERS = ("wsc273", "piqa", "cbt_cn", "enwik8", "text8", "wikitext2", "one_billion_word")
TASKS = ("lambada", "ptb/tokenized")


def evaluate(
    place: Path, model: str, out: Path | None = None, *, tasks: tuple[str, ...] = TASKS, rows: int = 4, workers: int = 1
) -> list[TaskResult]:
    with closing(ResultsFile(out)) as results:
        source = DataSource(place / "data")
        return list(evaluate_tasks(Target(str(place / model)), tasks, source, results, rows=rows, workers=workers))


def printed(results: list[TaskResult]) -> list[str]:
    return [f"{metric.name} {measured(metric)} {metric.count}" for result in results for metric in result.metrics]


@pytest.mark.parametrize("dtype", ["", BFLOAT16])
@pytest.mark.parametrize("model", ["tiny_gpt", "tiny_transformer_xl"])
def test_no_printed_digit_depends_on_the_batch(place: Path, model: str, dtype: str) -> None:
    model += dtype
    wanted = printed(evaluate(place, model, tasks=TASKS + OTHERS, rows=1))
    assert len(wanted) == 20
    for rows in (7, 32):
        assert printed(evaluate(place, model, tasks=TASKS + OTHERS, rows=rows)) == wanted


def test_two_workers_write_the_file_of_one(place: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    every = TASKS + OTHERS
    found = evaluate(place, "tiny_gpt", one, tasks=every)
    assert printed(found) == printed(evaluate(place, "tiny_gpt", two, tasks=every, workers=2))
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize("bytes_kept", [0.1, 0.5, 0.97])
def test_a_file_that_was_cut_anywhere_is_completed_to_the_same(place: Path, tmp_path: Path, bytes_kept: float) -> None:
    whole, cut = tmp_path / "whole.jsonl", tmp_path / "cut.jsonl"
    wanted = evaluate(place, "tiny_gpt", whole)
    content = whole.read_bytes()
    cut.write_bytes(content[: int(len(content) * bytes_kept)])
    assert printed(evaluate(place, "tiny_gpt", cut)) == printed(wanted)
    assert cut.read_bytes() == content


KILLED = """
import sys, time
from pathlib import Path
from evals import evaluate_tasks as module
from tests.evals import test_evaluate_tasks as test

slow = module.records
def slowly(*given):
    for record in slow(*given):
        yield record
        time.sleep(0.2)
module.records = slowly
test.evaluate(Path(sys.argv[1]), "tiny_gpt", Path(sys.argv[2]))
"""


def test_killed_in_the_middle_and_gone_on_with(place: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole.jsonl", tmp_path / "killed.jsonl"
    evaluate(place, "tiny_gpt", whole)
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(place), str(killed)], env=os.environ | {"PYTHONPATH": "."}
    )
    try:
        deadline = time.monotonic() + 120
        while not killed.exists() or killed.read_bytes().count(b"\n") < 5:
            assert process.poll() is None, "it ended before it was killed"
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert killed.read_bytes().count(b"\n") < whole.read_bytes().count(b"\n")
    evaluate(place, "tiny_gpt", killed)
    assert killed.read_bytes() == whole.read_bytes()


def test_data_that_are_gone_are_a_line_when_it_goes_on(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    wanted = evaluate(place, "tiny_gpt", out)
    file = place / "data" / "lambada" / "lambada_test.jsonl"
    file.rename(tmp_path / "away")
    try:
        gone, ptb = evaluate(place, "tiny_gpt", out)
    finally:
        (tmp_path / "away").rename(file)
    assert (gone.missing or "").startswith("no data: lambada")
    assert printed([ptb]) == printed(wanted[1:])


def test_a_file_of_another_protocol_is_refused(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    evaluate(place, "tiny_gpt", out)
    with pytest.raises(BadInput, match=r"lambada was evaluated otherwise: rows is 4 there and 5 now; give --out anoth"):
        evaluate(place, "tiny_gpt", out, rows=5)
    with pytest.raises(BadInput, match=r"model\.checkpoint\.hash is '.*' there and"):
        evaluate(place, "tiny_transformer_xl", out)
    for kept in ("my notes", '{"a": 1}', "my notes\nwithout an end"):
        out.write_text(kept)
        with pytest.raises(BadInput, match=r"is no line of results|is none of results"):
            evaluate(place, "tiny_gpt", out)
        assert out.read_text() == kept
    out.write_text('{"task": "lambada", "example": "0000", "nats": NaN}\n')
    with pytest.raises(BadInput, match=r"out.jsonl:1: is no line of results"):
        evaluate(place, "tiny_gpt", out)
    out.write_text("no results\n")
    with pytest.raises(BadInput, match=r"out.jsonl:1: is no line of results; give --out another file"):
        evaluate(place, "tiny_gpt", out)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (lambda lines: lines[1:], r":1: a result of lambada before its protocol, which must come first; was the file"),
        (lambda lines: [lines[0], *lines], r":2: lambada has its protocol twice, and must have it once; was the file"),
        (lambda lines: [*lines, lines[2]], r":25: example '00..' of lambada is on line 3 too, and must be there once"),
        (
            lambda lines: [*lines, re.sub(r"\"00..\"", '"9999"', lines[2])],
            r":25: lambada has no example '9999' with this pro",
        ),
        (
            lambda lines: [*lines[:5], re.sub(r"\"nats\": [^,}]*", '"gnats": 1', lines[5]), *lines[6:]],
            r": a result of lambada has no 'nats'; was the file changed",
        ),
        (lambda lines: [*lines, '{"task": "lambada", "nats": 1.0}\n'], r":25: is no line of results; give --out anoth"),
        (lambda lines: [*lines, '{"task": 3, "example": "0"}\n'], r":25: is no line of results; give --out another"),
    ],
)
def test_a_file_that_was_changed_is_refused_by_line_and_stays(
    place: Path, tmp_path: Path, changed: Callable[[list[str]], list[str]], message: str
) -> None:
    out = tmp_path / "out.jsonl"
    evaluate(place, "tiny_gpt", out, tasks=("lambada",))
    lines = out.read_text().splitlines(keepends=True)
    assert len(lines) == 24, "a header and 23 examples"
    out.write_text("".join(changed(lines)))
    kept = out.read_bytes()
    with pytest.raises(BadInput, match=rf"out\.jsonl{message}"):
        evaluate(place, "tiny_gpt", out, tasks=("lambada",))
    assert out.read_bytes() == kept


def test_two_evaluations_do_not_share_a_file(tmp_path: Path) -> None:
    with (
        closing(ResultsFile(tmp_path / "out.jsonl")),
        pytest.raises(BadInput, match="another evaluation writes it now"),
    ):
        ResultsFile(tmp_path / "out.jsonl")
    ResultsFile(tmp_path / "out.jsonl").close()


def test_missing_data_is_a_line_and_bad_names_are_answered(place: Path) -> None:
    (found,) = evaluate_tasks(
        Target(str(place / "tiny_gpt")), ["arc_easy"], DataSource(place / "data"), ResultsFile(None)
    )
    assert found.missing is not None
    (line,) = Report("", Column("tiny_gpt", [found]), GPT2_TABLE).further()
    assert line[:2] == ("arc_easy", "no data")
    assert found.missing.startswith("no data: arc_easy: no arc_easy.jsonl")
    with pytest.raises(BadInput, match="there is no such task; did you mean lambada"):
        list(evaluate_tasks(Target(str(place / "tiny_gpt")), ["lamda"], DataSource(None), ResultsFile(None)))


def test_the_first_examples_alone_are_of_another_protocol(place: Path, tmp_path: Path) -> None:
    out, source = tmp_path / "out.jsonl", DataSource(place / "data")
    for limit, count in ((5, 5), (None, 23)):
        (found,) = evaluate_tasks(Target("uniform:bytes"), ["lambada"], source, ResultsFile(None), limit=limit)
        assert {metric.count for metric in found.metrics} == {count}
        assert {metric.protocol["limit"] for metric in found.metrics} == {limit}
    with closing(ResultsFile(out)) as results:
        list(evaluate_tasks(Target("uniform:bytes"), ["lambada"], source, results, limit=23))
    with closing(ResultsFile(out)) as results, pytest.raises(BadInput, match="limit is 23 there and None now"):
        list(evaluate_tasks(Target("uniform:bytes"), ["lambada"], source, results))


def test_an_example_that_does_not_fit_is_named_and_the_task_not_asked(place: Path, tmp_path: Path) -> None:
    rows = ["memory carries", f"memory {'carries' * 10}", "on segue"]
    source = folder_with(tmp_path, "lambada", lambada_test__jsonl="".join(f'{{"text": "{row}"}}\n' for row in rows))
    (found,) = evaluate_tasks(Target(str(place / "tiny_gpt")), ["lambada"], source, ResultsFile(None))
    assert (found.missing or "").startswith(
        "not asked: lambada: example 0001: a continuation of 71 tokens does not fit"
    )


def test_contexts_that_do_not_fit_are_counted(place: Path) -> None:
    (lambada, _) = evaluate(place, "tiny_gpt")
    texts = [json.loads(line)["text"] for line in (place / "data/lambada/lambada_test.jsonl").read_text().splitlines()]
    too_long = sum(len(text.encode()) > 65 for text in texts)
    assert lambada.metrics[0].protocol["truncated"] == too_long > 0


@pytest.fixture
def uniform(place: Path) -> Iterator[list[TaskResult]]:
    with closing(ResultsFile(None)) as results:
        yield list(evaluate_tasks(Target("uniform:bytes"), TASKS, DataSource(place / "data"), results))


def test_uniform_bytes_cost_eight_bits_each(place: Path, uniform: list[TaskResult]) -> None:
    size = len((place / "data" / "ptb" / "ptb.test.txt").read_bytes())
    (value,) = (m for m in uniform[1].metrics if m.name == "ptb/tokenized/perplexity/words")
    assert np.log2(value.value) * value.count == pytest.approx(8 * size)
