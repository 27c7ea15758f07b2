"""Each row of the zero-shot table is the number that was published: its variant, denominator, and how it is read."""

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from evals.benchmark_table import GPT2_TABLE, Column, Report
from evals.evaluate_tasks import TaskResult, evaluate_tasks
from evals.metric import Metric
from evals.results_file import ResultsFile
from evals.targets import Target
from evals.tasks import TASKS
from evals.tasks.data import DataSource
from tests.evals.tasks.fakes import RunsOfBytes, evaluate, folder_with, one_nat_each

CANDIDATES = ("ox", "dog", "lion", "zebra", "beaver", "giraffe", "elephant", "crocodile", "salamander", "hippopotamus")


def question(sentence: str) -> str:
    lines = [f"{number} {sentence}" for number in range(1, 21)]
    return "\n".join([*lines, f"21 the XXXXX came .\tdog\t\t{'|'.join(CANDIDATES)}"]) + "\n\n"


WINOGRAD = {"txt1": "A fits in B because", "pron": "it", "txt2": "is small.", "options": ["A", "B"], "label": 0}
LINES, NATURAL = " it was n't \n we can not \n", "it wasn't\nwe cannot\n"
"""6 words, 2 lines."""
FILES = {
    "lambada/lambada_test.jsonl": json.dumps({"text": "she saw the cat"}) + "\n",
    "cbt/cbtest_CN_valid_2000ex.txt": question("a b ."),
    "cbt/cbtest_NE_valid_2000ex.txt": question("a b ."),
    "wsc273/wsc273.jsonl": json.dumps(WINOGRAD) + "\n",
    "ptb/ptb.test.txt": LINES,
    "wikitext2/wiki.test.tokens": " a , b \n c d \n",
    "wikitext103/wiki.test.tokens": " a , b \n c d \n",
    "enwik8/enwik8": "<page>é</page>\n",
    "text8/text8": " anarchism originated",
    "one_billion_word/news.en.heldout-00000-of-00050": "one two\nthree .\n",
}

LINE_ENDS = {"denominator": "words of the published file, and one end of line for each line", "text": "de-tokenized"}
TEST = {"split": "test"}
PUBLISHED: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "WSC273, partial": ("wsc273/accuracy/partial", "70.70", "", {"scored": "what follows the option"}),
    "LAMBADA accuracy": (
        "lambada/accuracy/last_token/stop_word_filter",
        "63.24",
        "",
        TEST | {"filter": "stop words", "target": "last_token", "text": "OpenAI, de-tokenized"},
    ),
    "LAMBADA perplexity": ("lambada/perplexity", "8.63", "", TEST | {"filter": "none", "text": "OpenAI, de-tokenized"}),
    "CBT common nouns": (
        "cbt_cn/accuracy",
        "93.30",
        "",
        {"split": "validation", "text": "de-tokenized", "candidates": 10, "normalisation": "none"},
    ),
    "CBT named entities": (
        "cbt_ne/accuracy",
        "89.05",
        "",
        {"split": "validation", "text": "de-tokenized", "candidates": 10, "normalisation": "none"},
    ),
    "Penn Treebank": ("ptb/perplexity/words_and_line_ends", "35.76", "54.5", TEST | LINE_ENDS),
    "WikiText-2": ("wikitext2/perplexity/words_and_line_ends", "18.34", "", TEST | LINE_ENDS),
    "enwik8 bits/byte": (
        "enwik8/bits_per_byte",
        "0.93",
        "0.99",
        TEST | {"denominator": "bytes of the original text"},
    ),
    "text8 bits/character": (
        "text8/bits_per_character",
        "0.98",
        "1.08",
        TEST | {"denominator": "characters of the original text", "text": "as is"},
    ),
    "WikiText-103": ("wikitext103/perplexity/words_and_line_ends", "17.48", "18.3", TEST | LINE_ENDS),
    "One Billion Word": (
        "one_billion_word/perplexity/words_and_sentence_ends",
        "42.16",
        "21.8",
        {"denominator": "words of the published file, and one end of sentence for each sentence"},
    ),
}
"""By title: the number, what GPT-2 and Transformer-XL got, and what must stand in its record."""
MEASURED = {
    "LAMBADA perplexity": (1, 256.0 ** len(" cat")),
    "Penn Treebank": (8, 256.0 ** (len(NATURAL) / 8)),
    "WikiText-2": (7, 256.0 ** (len("a, b\nc d\n") / 7)),
    "WikiText-103": (7, 256.0 ** (len("a, b\nc d\n") / 7)),
    "enwik8 bits/byte": (16, 8.0),
    "text8 bits/character": (21, 8.0),
    "One Billion Word": (6, 256.0 ** (len("one two\nthree .\n") / 6)),
}
"""What a model that is uniform over bytes gets, and over how many things."""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[TaskResult]:
    """All tasks of the table under a model that is uniform over bytes."""
    place = tmp_path_factory.mktemp("table")
    for name, content in FILES.items():
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_text(content, encoding="utf-8")
    tasks = list(dict.fromkeys(row.task for row in GPT2_TABLE))
    with closing(ResultsFile(None)) as kept:
        return list(evaluate_tasks(Target("uniform:bytes"), tasks, DataSource(place), kept))


def test_the_table_has_these_rows_and_published_numbers(results: list[TaskResult]) -> None:
    lines = Report("", Column("uniform", results), GPT2_TABLE).published()
    assert [line[0] for line in lines] == [row.title for row in GPT2_TABLE]
    published = {title: (gpt2, transformer_xl) for title, (_, gpt2, transformer_xl, _) in PUBLISHED.items()}
    assert {line[0]: (line[3], line[6]) for line in lines} == published


@pytest.mark.parametrize("title", PUBLISHED)
def test_a_row_is_of_the_published_protocol(results: list[TaskResult], title: str) -> None:
    name, _, _, protocol = PUBLISHED[title]
    (row,) = (row for row in GPT2_TABLE if row.title == title)
    assert f"{row.task}/{row.value}" == name
    metric = by_name(results)[name]
    assert {key: metric.protocol.get(key) for key in protocol} == protocol
    if title in MEASURED:
        assert (metric.count, metric.value) == (MEASURED[title][0], pytest.approx(MEASURED[title][1], rel=1e-9))


def by_name(results: list[TaskResult]) -> dict[str, Metric]:
    return {metric.name: metric for result in results for metric in result.metrics}


def test_candidates_see_one_context_however_it_is_cut(tmp_path: Path) -> None:
    """Two questions of three have more context than fits with the longest candidate: each counts once, not ten times.

    A byte a token; without the blank before `the` the context of the short one is 20 sentences of `a b.`.
    """
    questions = question("a very long line .") + question("a b .") + question("another long line .")
    source = folder_with(tmp_path, "cbt", cbtest_CN_valid_2000ex__txt=questions)
    whole = evaluate(TASKS["cbt_cn"], source, RunsOfBytes(), one_nat_each)
    assert whole.work.num_truncated == 0
    found = evaluate(TASKS["cbt_cn"], source, RunsOfBytes(), one_nat_each, max_length=140)
    assert found.work.num_truncated == 2
    room = 140 + 1 - len(" hippopotamus came.")
    for number, record in enumerate(found.records):
        own = slice(10 * number, 10 * number + 10)
        (before,) = {one.context.tobytes() for one in whole.work.items[own]}
        (after,) = {one.context.tobytes() for one in found.work.items[own]}
        size = len(before) // 8
        assert after == before[-8 * room :]
        assert record["dropped"] == max(0, size - room)
    assert [record["dropped"] > 0 for record in found.records] == [True, False, True]
    assert len(found.work.groups) == 3
