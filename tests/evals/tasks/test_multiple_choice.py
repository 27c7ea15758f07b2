"""Multiple choice: the file's form, four measures, what the hub's rows become."""

import json
from pathlib import Path
from typing import Any

import pytest

from data_pipeline.config import BadInput
from evals.scoring.encoding import Request
from evals.scoring.item import Item
from evals.tasks import TASKS
from evals.tasks.data import DataSource, Missing
from evals.tasks.multiple_choice import MEASURES
from evals.tasks.task import Record, Task
from tests.evals.tasks.fakes import RunsOfBytes, evaluate, fake_hub, folder_with

NAMES = ("hellaswag", "piqa", "arc_easy", "arc_challenge", "blimp")
ROW = {"context": "A cat", "options": ["purrs", "naïvetés!", "sits on it"], "label": 0}
"""Of 5, 11 and 10 bytes; 5, 9 and 10 characters; 6, 12 and 11 tokens where a token is a byte."""


def write(place: Path, name: str, *rows: Any) -> DataSource:
    return folder_with(place, name, **{f"{name}__jsonl": "".join(json.dumps(row) + "\n" for row in rows)})


def known_nats(item: Item) -> list[float]:
    """By the number of tokens, so that the measures choose otherwise:

    sum        6.0   12.1  10.0    the first
    bytes      1.20  1.10  1.00    the last
    characters 1.20  1.34  1.00    the last
    tokens     1.00  1.01  0.91    the last
    """
    total = {6: 6.0, 12: 12.1, 11: 10.0}[len(item.continuation)]
    return [total / len(item.continuation)] * len(item.continuation)


def check(task: Task, source: DataSource) -> None:
    """The right ones are the first, the last, and again the last."""
    found = evaluate(task, source, RunsOfBytes(), known_nats)
    assert {name: value.value for name, value in found.values.items()} == {
        "accuracy/sum": pytest.approx(100 / 3),
        "accuracy/per_byte": pytest.approx(200 / 3),
        "accuracy/per_character": pytest.approx(200 / 3),
        "accuracy/per_token": pytest.approx(200 / 3),
    }


def three(place: Path, name: str = "piqa") -> DataSource:
    return write(place, name, ROW, ROW | {"label": 2}, ROW | {"label": 2})


@pytest.mark.parametrize("name", NAMES)
def test_known_answers(tmp_path: Path, name: str) -> None:
    check(TASKS[name], three(tmp_path, name))


@pytest.mark.parametrize("mistake", ["label", "sums", "lengths"])
def test_a_planted_mistake_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mistake: str) -> None:
    task = TASKS["piqa"]
    right = task.judge

    def wrong(*given: object) -> Record:
        record = right(*given)  # type: ignore[arg-type]
        wrongly: dict[str, Record] = {
            "label": {"label": (record["label"] + 1) % 3},
            "sums": {"nats": [one / size for one, size in zip(record["nats"], record["tokens"], strict=True)]},
            "lengths": {"bytes": [1, 1, 1]},
        }
        return record | wrongly[mistake]

    monkeypatch.setattr(task, "judge", wrong)
    with pytest.raises(AssertionError):
        check(task, three(tmp_path))


def test_each_measure_has_its_own_lengths() -> None:
    """For each measure a record that it alone calls right."""
    even: Record = {key: [10, 10] for key in ("bytes", "characters", "tokens")}
    task = TASKS["piqa"]
    for name, lengths in MEASURES.items():
        if lengths is None:
            record: Record = {"nats": [1.0, 2.0], "bytes": [1, 10], "characters": [1, 10], "tokens": [1, 10]}
        else:
            record = {"nats": [2.0, 1.0]} | even | {lengths: [10, 1]}
        found = {value.name: value.value for value in task.values([record | {"label": 0}])}
        assert found == {f"accuracy/{other}": 100.0 * (other == name) for other in MEASURES}


def test_requests(tmp_path: Path) -> None:
    task = TASKS["hellaswag"]
    rows = [ROW, ROW | {"context": ""}, ROW | {"suffix": " again."}]
    examples = task.examples(task.load(write(tmp_path, "hellaswag", *rows)))
    assert [example.requests[0] for example in examples] == [
        Request("A cat", " purrs"),
        Request("", "purrs"),
        Request("A cat", " purrs again."),
    ]
    assert dict(examples[2].facts or {}) == {"label": 0, "bytes": [12, 18, 17], "characters": [12, 16, 17]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": 3}, "label is 3, must be from 0 to 2, the place of the right option"),
        ({"label": -1}, "label is -1, must be from 0 to 2"),
        ({"label": "0"}, "label is '0', must be of type int"),
        ({"options": ["one"]}, "options are 1, must be at least 2"),
        ({"options": []}, "options are 0, must be at least 2"),
        ({"options": ["a", ""]}, "options has '', must be texts that are not empty"),
        ({"options": "ab"}, "options is 'ab', must be of type list"),
        ({"options": ["a", " b"]}, "the option ' b' has blanks at its ends; leave them out"),
        ({"context": "A cat "}, "context has blanks at its ends; a blank before each option is put there"),
        ({"suffix": 3}, "suffix is 3, must be of type str"),
        ({"answer": 0}, "unknown field 'answer'; the fields are context, options, label, suffix"),
    ],
)
def test_bad_rows(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=f"^arc_easy/arc_easy.jsonl:2: {message}"):
        TASKS["arc_easy"].load(write(tmp_path, "arc_easy", ROW, ROW | change))


@pytest.mark.parametrize("name", NAMES)
def test_bad_files(tmp_path: Path, name: str) -> None:
    with pytest.raises(Missing, match=rf"{name}: no {name}.jsonl \(or .gz\) in "):
        TASKS[name].load(DataSource(tmp_path))
    with pytest.raises(BadInput, match=f"^{name}/{name}.jsonl: is empty"):
        TASKS[name].load(write(tmp_path, name))


HUB_ROWS: dict[str, dict[str, Any]] = {
    "hellaswag": {
        "activity_label": "Baking",
        "ctx_a": "A man mixes flour. [header] How to bake [title] Preheat.",
        "ctx_b": "he",
        "endings": ["stirs it.", "[substeps] Eats.", "sings.", "leaves."],
        "label": "3",
    },
    "piqa": {"goal": "How to open a jar?", "sol1": "Twist it.", "sol2": "Sing. ", "label": 1},
    "arc_easy": {
        "question": "What is hot?",
        "choices": {"text": ["ice", "fire"], "label": ["1", "2"]},
        "answerKey": "2",
    },
    "arc_challenge": {"question": "Why?", "choices": {"text": ["so", "no"], "label": ["A", "B"]}, "answerKey": "A"},
    "blimp": {"sentence_good": "A cat purrs.", "sentence_bad": "A cats purrs."},
}
READ: dict[str, dict[str, Any]] = {
    "hellaswag": {
        "context": "Baking: A man mixes flour. How to bake. Preheat. He",
        "options": ["stirs it.", "Eats.", "sings.", "leaves."],
        "label": 3,
    },
    "piqa": {"context": "Question: How to open a jar?\nAnswer:", "options": ["Twist it.", "Sing."], "label": 1},
    "arc_easy": {"context": "Question: What is hot?\nAnswer:", "options": ["ice", "fire"], "label": 1},
    "arc_challenge": {"context": "Question: Why?\nAnswer:", "options": ["so", "no"], "label": 0},
    "blimp": {"context": "", "options": ["A cat purrs.", "A cats purrs."], "label": 0},
}


@pytest.mark.parametrize("name", NAMES)
def test_the_hub(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def rows(*names: str, **more: Any) -> list[dict[str, Any]]:
        asked.append(names)
        return [HUB_ROWS[name]]

    fake_hub(monkeypatch, rows, get_dataset_config_names=lambda place: ["b", "a"])
    data = TASKS[name].load(DataSource())
    assert data.rows == [READ[name]] * (2 if name == "blimp" else 1)
    if name == "blimp":
        assert [configuration for _, configuration in asked] == ["a", "b"], "in a fixed order"
    assert data.notes["prompt"] != "as in the file"


def test_no_network_is_no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*names: str, **more: Any) -> None:
        raise ConnectionError("no route\nto host")

    fake_hub(monkeypatch, unreachable)
    wanted = r"^piqa: the hub did not give it \(ConnectionError: no route\); give --data-dir with piqa.jsonl$"
    with pytest.raises(Missing, match=wanted):
        TASKS["piqa"].load(DataSource())


def test_the_acceptable_sentence_of_a_pair_is_first_and_second_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a model that finds all equal is right half of the time."""
    pairs = [{"sentence_good": f"Cat {number} purrs.", "sentence_bad": f"Cats {number} purrs."} for number in range(3)]
    fake_hub(monkeypatch, lambda *names, **more: pairs, get_dataset_config_names=lambda place: ["a"])
    rows = TASKS["blimp"].load(DataSource()).rows
    assert [row["label"] for row in rows] == [0, 1, 0]
    assert [row["options"][row["label"]] for row in rows] == [pair["sentence_good"] for pair in pairs]
