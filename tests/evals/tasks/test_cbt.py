"""Children's Book Test: the official format, contexts that are shared, the candidate with the rest of its sentence."""

from pathlib import Path

import pytest

from data_pipeline.config import BadInput
from evals.detokenizers import round_trip
from evals.detokenizers.childrens_book import ChildrensBook
from evals.scoring.item import Item
from evals.tasks import TASKS, cbt
from evals.tasks.data import DataSource, Missing
from evals.tasks.task import Record, Task
from tests.evals.benchmark_data import benchmark_data, benchmark_text
from tests.evals.detokenizers import hostile
from tests.evals.tasks.fakes import RunsOfBytes, evaluate, fake_hub, folder_with

FILE = "cbtest_CN_valid_2000ex.txt"
WORDS = ["dog", "elephant", "a", "giraffe", "ox", "frog", "lion", "zebra", "panda", "beaver"]


def question(
    query: str = "` the XXXXX did n't come , ' said he .",
    answer: str = "ox",
    words: list[str] = WORDS,
    sentences: int = 20,
) -> str:
    lines = [f"{number} Number {number} was n't here ." for number in range(1, sentences + 1)]
    return "\n".join([*lines, f"{sentences + 1} {query}\t{answer}\t\t{'|'.join(words)}"]) + "\n"


def write(place: Path, content: str, kind: str = "CN") -> DataSource:
    return folder_with(place, "cbt", **{FILE.replace("CN", kind): content})


def shortest_wins(item: Item) -> list[float]:
    """A nat a byte."""
    return [1.0] * len(item.continuation)


def check(task: Task, source: DataSource) -> None:
    """Of two questions the second's answer is the shortest word."""
    found = evaluate(task, source, RunsOfBytes(), shortest_wins)
    assert found.values["accuracy"].value == 50
    assert found.values["accuracy"].count == 2
    rest = len(" didn't come,' said he.")
    assert found.records[0]["nats"] == [len(" " + word) + rest for word in WORDS]
    assert (found.records[0]["label"], found.records[1]["label"]) == (4, 2)


def two(place: Path) -> DataSource:
    return write(place, question() + "\n" + question(answer="a") + "\n")


def test_known_answers(tmp_path: Path) -> None:
    check(TASKS["cbt_cn"], two(tmp_path))


@pytest.mark.parametrize("mistake", ["label", "order", "likeliest"])
def test_a_planted_mistake_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mistake: str) -> None:
    task = TASKS["cbt_cn"]
    right = task.judge

    def wrong(*given: object) -> Record:
        record = right(*given)  # type: ignore[arg-type]
        wrongly = {"label": {"label": (record["label"] + 1) % 10}, "order": {"nats": [*record["nats"][1:], 0.0]}}
        return record | wrongly[mistake]

    if mistake == "likeliest":
        monkeypatch.setattr(cbt, "likeliest", lambda scores: scores.index(max(scores)))
    else:
        monkeypatch.setattr(task, "judge", wrong)
    with pytest.raises(AssertionError):
        check(task, two(tmp_path))


def test_all_candidates_share_one_context_that_is_read_once(tmp_path: Path) -> None:
    found = evaluate(TASKS["cbt_cn"], two(tmp_path), RunsOfBytes(), shortest_wins)
    first = found.work.examples[0].requests
    assert len({request.context for request in first}) == 1
    assert first[0].context.startswith("Number 1 wasn't here. Number 2 wasn't here.")
    assert first[0].context.endswith("Number 20 wasn't here. 'the")
    assert first[1].continuation == " elephant didn't come,' said he."
    assert {len(group.items) for group in found.work.groups} == {10}, "one group for each question"


def test_a_blank_at_the_beginning_after_a_quote_and_in_two_places() -> None:
    def requests(query: str) -> list[tuple[str, str]]:
        (one,) = cbt.read_questions(question(query), "f")
        return [(r.context[-6:], r.continuation) for r in cbt.requests_of(one, ChildrensBook())[:2]]

    assert requests("XXXXX 's here .") == [(" here.", " dog's here."), (" here.", " elephant's here.")]
    assert requests("` XXXXX ! '") == [("ere. '", "dog!'"), ("ere. '", "elephant!'")]
    assert requests("a XXXXX and a XXXXX .")[0] == ("ere. a", " dog and a dog.")


def test_text_is_as_one_would_write_it() -> None:
    examples = {
        "` What is it ? ' said the Cat .": "'What is it?' said the Cat.",
        "`` I ca n't , '' cried Mr. Fox 's son .": "\"I can't,\" cried Mr. Fox's son.",
        "She -LRB- the Queen -RRB- can not go ; he 'll see .": "She (the Queen) cannot go; he'll see.",
        "XXXXX 's dog !": "XXXXX's dog!",
    }
    for raw, text in examples.items():
        assert ChildrensBook().text(raw) == text
        assert ChildrensBook().raw(text) == raw


def test_hostile_lines_come_back() -> None:
    assert round_trip(ChildrensBook(), hostile.lines(20_000, seed=5)).failed == 0


def test_a_book_comes_back_whole() -> None:
    raw = benchmark_text("cbt/cbt_test.txt").replace("\r", "")
    lines = raw.splitlines(keepends=True)
    detokenizer = ChildrensBook()
    assert round_trip(detokenizer, lines).verdict == "invertible: all 16,646 pieces came back unchanged"
    assert round_trip(detokenizer, [raw]).failed == 0
    assert len(list(detokenizer.awkward(raw))) < 20, "of 330,652 words"


@pytest.mark.parametrize(
    ("content", "message"),
    {
        " \n": ": is empty",
        question(sentences=19): ":20: the file ends after 20 lines of a question, which has 21",
        question().replace("\n5 Number", "\n6 Number"): ":5: begins with '6', must begin with its number, 5",
        question().replace("\n5 Number", "\n\n5 Number"): ":5: a blank line after 4 lines of a question, which has 21",
        "1 One .\n2 Two .\n": ":2: the file ends after 2 lines of a question, which has 21",
        question(query="no gap ."): ":21: the sentence has no XXXXX for the missing word",
        question(answer="cat"): ":21: the answer 'cat' is none of the candidates 'dog.elephant",
        question(words=WORDS[:9]): ":21: options are 9, must be 10",
        question(words=[*WORDS[:9], ""]): ":21: options has '', must be texts that are not empty",
        question().replace("\tox\t\t", "\tox\t"): ":21: 3 fields, must be 4 between tabs",
    }.items(),
)
def test_bad_files(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(BadInput, match=f"^cbt/{FILE}{message}"):
        TASKS["cbt_cn"].load(write(tmp_path, content))


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(Missing, match=r"^cbt_ne: no cbtest_NE_valid_2000ex.txt \(or .gz\) in "):
        TASKS["cbt_ne"].load(DataSource(tmp_path))


def test_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    row = {
        "sentences": [f"Number {number} was n't here ." for number in range(1, 21)],
        "question": "` the XXXXX did n't come , ' said he .",
        "answer": "ox",
        "options": WORDS,
    }
    fake_hub(monkeypatch, lambda *names, **more: [row, row | {"answer": "a"}])
    assert TASKS["cbt_cn"].load(DataSource()).rows == TASKS["cbt_cn"].load(two(tmp_path)).rows


@pytest.mark.parametrize("kind", ["CN", "NE"])
@pytest.mark.parametrize("split", ["valid_2000ex", "test_2500ex", "train"])
def test_official_examples(tmp_path: Path, kind: str, split: str) -> None:
    """One question each, of which the maker took sentences' words out."""
    path = benchmark_data() / "cbt" / f"sample_cbtest_{kind}_{split}.txt"
    if not path.is_file():
        pytest.skip(f"no {path}")
    task = TASKS[f"cbt_{kind.lower()}"]
    data = task.load(write(tmp_path, path.read_text(encoding="utf-8"), kind))
    examples = task.examples(data)
    assert data.notes["round_trip"] == f"invertible: all {21 * len(examples)} pieces came back unchanged"
    assert {len(example.requests) for example in examples} == {10}
