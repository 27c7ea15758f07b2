"""Winograd Schema Challenge: full and partial scoring, options as the sentence needs them."""

import json
from pathlib import Path
from typing import Any

import pytest

from data_pipeline.config import BadInput
from evals.scoring.encoding import Request
from evals.scoring.item import Item
from evals.tasks import TASKS, wsc273
from evals.tasks.data import DataSource, Missing
from evals.tasks.task import Record, Task
from evals.tasks.wsc273 import worded
from tests.evals.benchmark_data import benchmark_data, benchmark_text
from tests.evals.tasks.fakes import RunsOfBytes, evaluate, fake_hub, folder_with

ROW = {
    "txt1": "The trophy doesn't fit into the brown suitcase because",
    "pron": "it",
    "txt2": "is too large.",
    "options": ["The trophy", "the brown suitcase"],
    "label": 0,
}
OTHER = ROW | {"txt2": "is too small.", "label": 1}
BOTH_FIELDS = {"index": 3, "source": "a book"}


def write(place: Path, *rows: Any) -> DataSource:
    return folder_with(place, "wsc273", wsc273__jsonl="".join(json.dumps(row) + "\n" for row in rows))


def few_of_few(item: Item) -> list[float]:
    """A nat a byte, of whole sentences; of what follows an option fewer nats the longer the context."""
    each = 1.0 if len(item.context) == 1 else 1 / len(item.context)
    return [each] * len(item.continuation)


def check(task: Task, source: DataSource) -> None:
    """Full scoring takes the shorter option, the first; partial scoring the longer, the second."""
    found = evaluate(task, source, RunsOfBytes(), few_of_few)
    assert {name: value.value for name, value in found.values.items()} == {
        "accuracy/full": pytest.approx(200 / 3),
        "accuracy/partial": pytest.approx(100 / 3),
    }
    assert {value.count for value in found.values.values()} == {3}


def three(place: Path) -> DataSource:
    return write(place, ROW, OTHER, ROW | BOTH_FIELDS)


def test_known_answers(tmp_path: Path) -> None:
    check(TASKS["wsc273"], three(tmp_path))


@pytest.mark.parametrize("mistake", ["label", "swapped", "likeliest"])
def test_a_planted_mistake_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mistake: str) -> None:
    task = TASKS["wsc273"]
    right = task.judge

    def wrong(*given: object) -> Record:
        record = right(*given)  # type: ignore[arg-type]
        wrongly = {
            "label": {"label": 1 - record["label"]},
            "swapped": {"full_nats": record["partial_nats"], "partial_nats": record["full_nats"]},
        }
        return record | wrongly[mistake]

    if mistake == "likeliest":
        monkeypatch.setattr(wsc273, "likeliest", lambda scores: scores.index(max(scores)))
    else:
        monkeypatch.setattr(task, "judge", wrong)
    with pytest.raises(AssertionError):
        check(task, three(tmp_path))


def test_requests(tmp_path: Path) -> None:
    task = TASKS["wsc273"]
    end = {"txt1": "She saw", "pron": "them", "txt2": ".", "options": ["The cats", "dogs"]}
    examples = task.examples(task.load(write(tmp_path, ROW, ROW | end)))
    before = "The trophy doesn't fit into the brown suitcase because the"
    assert examples[0].requests == (
        Request("", f"{before} trophy is too large."),
        Request(f"{before} trophy", " is too large."),
        Request("", f"{before} brown suitcase is too large."),
        Request(f"{before} brown suitcase", " is too large."),
    )
    assert examples[1].requests[2:] == (Request("", "She saw dogs."), Request("She saw dogs", "."))


@pytest.mark.parametrize(
    ("option", "pronoun", "wanted"),
    [
        ("The trophy", "it", "the trophy"),
        ("an oak tree", "It", "An oak tree"),
        ("hair", "It", "Hair"),
        ("Bob", "he", "Bob"),
        ("My father", "him", "my father"),
        ("Anthony", "he", "Anthony"),
        ("The man", "his", "the man's"),
        ("Emma's", "her", "Emma's"),
        ("the woman", "Her", "The woman's"),
        ("Charlie's", "He", "Charlie"),
        ("Tina's", "it", "Tina's"),
        ("Paul's books", "they", "Paul's books"),
    ],
)
def test_options_are_worded(option: str, pronoun: str, wanted: str) -> None:
    assert worded(option, pronoun) == wanted


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": 2}, "label is 2, must be from 0 to 1, the place of the right option"),
        ({"label": -1}, "label is -1, must be from 0 to 1"),
        ({"label": True}, "label is True, must be of type int"),
        ({"label": "A"}, "label is 'A', must be of type int"),
        ({"options": ["one"]}, "options are 1, must be 2"),
        ({"options": ["a", "b", "c"]}, "options are 3, must be 2"),
        ({"options": ["a", " "]}, "options has ' ', must be texts that are not empty"),
        ({"options": ["a", 3]}, "options has 3, must be texts that are not empty"),
        ({"txt2": ""}, "txt2 is '', must not be empty"),
        ({"pron": " "}, "pron is ' ', must not be empty"),
        ({"pronoun": "it"}, "unknown field 'pronoun'; the fields are txt1, pron, txt2, options, label, index, source"),
        ({"index": "0"}, "index is '0', must be of type int"),
    ],
)
def test_bad_rows(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=f"^wsc273/wsc273.jsonl:2: {message}"):
        TASKS["wsc273"].load(write(tmp_path, ROW, ROW | change))


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(Missing, match=r"wsc273: no wsc273.jsonl \(or .gz\) in "):
        TASKS["wsc273"].load(DataSource(tmp_path))
    with pytest.raises(BadInput, match=r"^wsc273/wsc273.jsonl: is empty"):
        TASKS["wsc273"].load(write(tmp_path))
    with pytest.raises(BadInput, match=r"^wsc273/wsc273.jsonl:1: lacks pron"):
        TASKS["wsc273"].load(write(tmp_path, {"txt1": "a"}))


def test_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    text = f"{ROW['txt1']}  it {ROW['txt2']}"
    row = {
        "text": text,
        "pronoun": "it",
        "pronoun_loc": text.rindex(" it ") + 1,
        "quote": "",
        "quote_loc": 0,
        "options": ROW["options"],
        "label": 0,
        "source": "",
    }
    fake_hub(monkeypatch, lambda *names, **more: [row])
    assert TASKS["wsc273"].load(DataSource()).rows == [ROW]


def test_published_counts() -> None:
    benchmark_text("wsc273/wsc273.jsonl")
    task = TASKS["wsc273"]
    data = task.load(DataSource(benchmark_data()))
    examples = task.examples(data)
    assert len(examples) == 273
    assert sum((example.facts or {})["label"] == 0 for example in examples) == 137
    first = [{"full_nats": [1.0, 2.0], "partial_nats": [1.0, 2.0]} | dict(e.facts or {}) for e in examples]
    values = {value.name: value for value in task.values(first)}
    assert values["accuracy/partial"].value == pytest.approx(100 * 137 / 273)
    right = [{"full_nats": [0.0], "partial_nats": [0.0], "label": int(place >= 193)} for place in range(273)]
    (full, _) = task.values(right)
    assert full.stderr == pytest.approx(2.76, abs=0.01), "EVALS: 2.75 points at the published 70.70"


def test_every_sentence_is_as_one_would_write_it() -> None:
    """As in the copy by hand of MosaicML's, where that keeps the options' words."""
    benchmark_text("wsc273/wsc273.jsonl")
    copy = [json.loads(line) for line in benchmark_text("wsc273/winograd_wsc_mosaic.jsonl").splitlines()]
    task = TASKS["wsc273"]
    examples = task.examples(task.load(DataSource(benchmark_data())))
    same = sum(
        (example.requests[2 * place + 1].context, example.requests[2 * place + 1].continuation.strip())
        == (row["context_options"][place], row["continuation"].strip())
        for example, row in zip(examples, copy, strict=True)
        for place in (0, 1)
    )
    assert same > 400, "of 546"
    assert not any("  " in request.continuation for example in examples for request in example.requests)
