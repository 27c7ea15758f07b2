"""LAMBADA: its texts, its variants."""

import json
import math
from itertools import product
from pathlib import Path

import pytest

from data_pipeline.config import BadInput
from evals.scoring.encoding import Request
from evals.scoring.item import Item
from evals.tasks import TASKS
from evals.tasks.data import DataSource, Missing
from evals.tasks.task import Record, Task
from tests.evals.benchmark_data import benchmark_data, benchmark_text
from tests.evals.tasks.fakes import UNKNOWN, RunsOfBytes, Words, evaluate, fake_hub, folder_with

FILES = {
    "lambada": "lambada_test.jsonl",
    "lambada/standard": "lambada_test_plain_text.txt",
    "lambada/standard/development": "lambada_development_plain_text.txt",
}
PASSAGES = ["she saw the cat", "“Yes,” said an old man", "it was in\nthe box"]


def write(place: Path, name: str, passages: list[str]) -> DataSource:
    lines = passages if name != "lambada" else [json.dumps({"text": text}) for text in passages]
    return folder_with(place, "lambada", **{FILES[name]: "\n".join(lines) + "\n"})


def half_a_nat_each(item: Item) -> list[float]:
    return [0.5] * len(item.continuation)


def all_but_the_first(item: Item) -> list[bool]:
    return [False] + [True] * (len(item.continuation) - 1)


def check(task: Task, source: DataSource) -> None:
    """A byte a token, half a nat each: 4 + 4 + 8 bytes of words with their blanks; none has its first byte right."""
    values = evaluate(task, source, RunsOfBytes(), half_a_nat_each, all_but_the_first).values
    assert values["perplexity"].value == pytest.approx(math.exp(0.5 * 12 / 3), rel=1e-12)
    assert values["perplexity"].count == 3
    assert {name: value.value for name, value in values.items() if name != "perplexity"} == {
        "accuracy/word": 0,
        "accuracy/word/stop_word_filter": 0,
        "accuracy/last_token": 100,
        "accuracy/last_token/stop_word_filter": 100,
    }


@pytest.mark.parametrize("name", FILES)
def test_known_answers(tmp_path: Path, name: str) -> None:
    check(TASKS[name], write(tmp_path, name, ["she saw the cat", "said an old man", "in the box"]))


@pytest.mark.parametrize("mistake", ["nats", "word", "last_token"])
def test_a_planted_mistake_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mistake: str) -> None:
    task = TASKS["lambada"]
    right = task.judge

    def wrong(*given: object) -> Record:
        record = right(*given)  # type: ignore[arg-type]
        others = {"nats": record["nats"] / record["tokens"], "word": True, "last_token": record["word"]}
        return record | {mistake: others[mistake]}

    monkeypatch.setattr(task, "judge", wrong)
    with pytest.raises(AssertionError):
        check(task, write(tmp_path, "lambada", ["she saw the cat", "said an old man", "in the box"]))


def as_percent(right: bool) -> float:
    return 100.0 if right else 0.0


@pytest.mark.parametrize("barred", [False, True])
@pytest.mark.parametrize("greedy", [(False,), (True,), *product([False, True], repeat=2)])
def test_the_filter_is_of_the_first_token(tmp_path: Path, greedy: tuple[bool, ...], barred: bool) -> None:
    """`barred`: the first token is the likeliest of what is no stop word. A word of one token and one of two."""
    word = {1: "cat", 2: "evening"}[len(greedy)]
    source = write(tmp_path, "lambada", [f"she saw the {word}"])
    values = evaluate(
        TASKS["lambada"], source, Words(letters=4), half_a_nat_each, lambda item: greedy, greedy_barred=barred
    ).values
    one_token = len(greedy) == 1
    assert {name: value.value for name, value in values.items() if name != "perplexity"} == {
        "accuracy/word": as_percent(all(greedy)),
        "accuracy/word/stop_word_filter": as_percent(barred and (one_token or greedy[1])),
        "accuracy/last_token": as_percent(greedy[-1]),
        "accuracy/last_token/stop_word_filter": as_percent(barred if one_token else greedy[1]),
    }


def test_stop_words_are_barred_with_their_blank_in_every_case(tmp_path: Path) -> None:
    """Only those of one token: `which` has two here."""
    tokenizer = Words(letters=4)
    for piece in ("the", " the", " The", " THE", " tHe", " a", " A", " whic", " cat", " who", "who"):
        tokenizer.number(piece)
    found = evaluate(TASKS["lambada"], write(tmp_path, "lambada", PASSAGES), tokenizer, half_a_nat_each)
    for item in found.work.items:
        barred = {piece for piece, number in tokenizer.number_of.items() if number in item.barred}
        assert {" the", " The", " THE", " a", " A", " who"} <= barred
        assert not barred & {"the", "who", " tHe", " whic", " cat", " man", " box"}


def test_unknown_words_are_counted_where_they_are_scored(tmp_path: Path) -> None:
    """Not those of the context; and `<unk>` for a word is the text's own."""
    source = write(tmp_path, "lambada", ["the cat saw xx", "xx yy the cat", "xx saw <unk>", "the the yy"])
    tokenizer = Words(known=frozenset({"the", "cat", "saw"}))
    assert evaluate(TASKS["lambada"], source, tokenizer, half_a_nat_each, unknown=UNKNOWN).work.num_unknown == 2
    assert evaluate(TASKS["lambada"], source, tokenizer, half_a_nat_each).work.num_unknown == 0


def test_the_last_word_is_what_follows_the_last_blank(tmp_path: Path) -> None:
    task = TASKS["lambada"]
    examples = task.examples(task.load(write(tmp_path, "lambada", [*PASSAGES, "her smile\u2028was wide "])))
    assert [example.requests[0] for example in examples] == [
        Request("she saw the", " cat"),
        Request("“Yes,” said an old", " man"),
        Request("it was in\nthe", " box"),
        Request("her smile\u2028was", " wide"),
    ]
    assert [example.name for example in examples] == ["0000", "0001", "0002", "0003"]


def test_each_is_labelled() -> None:
    assert {name: TASKS[name].protocol()["text"] for name in FILES} == {
        "lambada": "OpenAI, de-tokenized",
        "lambada/standard": "standard, tokenised",
        "lambada/standard/development": "standard, tokenised",
    }
    assert TASKS["lambada/standard/development"].protocol()["split"] == "development"


def test_bad_files(tmp_path: Path) -> None:
    for name, file in FILES.items():
        with pytest.raises(Missing, match=rf"^{name}: no {file} \(or .gz\) in "):
            TASKS[name].load(DataSource(tmp_path))
    for content, message in {
        "\n": ": is empty",
        "{": ":1: is no JSON",
        '{"text": "a \\ud800 b"}': r":1: text has '\\ud800', half of a character; write the whole of it",
        '{"text": "a b"}\n{"txt": "a b"}': ":2: unknown field 'txt'; the fields are text",
        "{}": ":1: lacks text",
        '{"text": 3}': ":1: text is 3, must be of type str",
        "[]": ":1: must be an object with text, not list",
        '{"text": "a b"}\n\n{"text": "a b"}': ":2: is no JSON",
        '{"text": "one"}': ":1: text 'one' has no last word after another",
        '{"text": "one\\ntwo"}': r":1: text 'one\\ntwo' has no last word after another",
    }.items():
        source = folder_with(tmp_path, "lambada", lambada_test__jsonl=content)
        with pytest.raises(BadInput, match="^lambada/lambada_test.jsonl" + message):
            TASKS["lambada"].load(source)
    source = write(tmp_path, "lambada/standard", ["a b", "", "c d"])
    with pytest.raises(
        BadInput, match=r"^lambada/lambada_test_plain_text.txt:2: text '' has no last word after another"
    ):
        TASKS["lambada/standard"].load(source)


def test_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def rows(*names: str, **more: str) -> list[dict[str, str]]:
        asked.append((*names, more["split"]))
        return [{"text": text, "domain": ""} for text in PASSAGES[:2]]

    fake_hub(monkeypatch, rows)
    for name in FILES:
        assert TASKS[name].load(DataSource()).rows == PASSAGES[:2]
    assert asked[1:] == [("cimec/lambada", "test"), ("cimec/lambada", "validation")]


@pytest.mark.parametrize(("name", "published"), [("lambada", 5153), ("lambada/standard/development", 4869)])
def test_published_counts(name: str, published: int) -> None:
    benchmark_text(f"lambada/{FILES[name]}")
    data = TASKS[name].load(DataSource(benchmark_data()))
    assert len(TASKS[name].examples(data)) == published
    if name == "lambada":
        (digest,) = data.files.values()
        assert digest.startswith("4aa8d02c"), "OpenAI's file"
