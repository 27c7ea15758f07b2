"""Penn Treebank, WikiText and One Billion Word: what is read, what is counted, what comes of it."""

import math
from functools import partial
from pathlib import Path

import pytest

from data_pipeline.config import BadInput
from evals.scoring.item import Item
from evals.tasks import TASKS
from evals.tasks.data import DataSource, Missing
from evals.tasks.one_billion_word import FILE
from evals.tasks.running_text import BLOCK_TOKENS, text_record, total_nats
from evals.tasks.task import Answer, Record, Task
from evals.tasks.wikitext import articles
from tests.evals.benchmark_data import benchmark_data, benchmark_text
from tests.evals.tasks.fakes import (
    UNKNOWN,
    Outcome,
    RunsOfBytes,
    Words,
    evaluate,
    fake_hub,
    folder_with,
    one_nat_each,
)

LINES = " it was n't <unk> \n we can not pay $ N \n"
"""4 and 6 words."""
NATURAL = "it wasn't <unk>\nwe cannot pay $N\n"
ARTICLES = " \n = One = \n \n a , b \n = = Part = = \n c \n = Two = \n d \n"

FILE_OF = {
    "ptb": ("ptb", "ptb.test.txt"),
    "ptb/tokenized": ("ptb", "ptb.test.txt"),
    "ptb/validation": ("ptb", "ptb.valid.txt"),
    **{
        f"{corpus}{variant}": (corpus, file)
        for corpus in ("wikitext2", "wikitext103")
        for variant, file in {
            "": "wiki.test.tokens",
            "/tokenized": "wiki.test.tokens",
            "/validation": "wiki.valid.tokens",
            "/raw": "wiki.test.raw",
            "/raw/tokenized": "wiki.test.raw",
            "/raw/articles": "wiki.test.raw",
        }.items()
    },
}


def write(place: Path, task: str, content: str) -> DataSource:
    folder, file = FILE_OF[task]
    return folder_with(place, folder, **{file: content})


def check_ptb(task: Task, place: Path) -> Outcome:
    """A byte a token, a nat a token: 33 + 17 bytes, 10 words, 2 ends of lines."""
    found = evaluate(task, write(place, "ptb", LINES), RunsOfBytes(), one_nat_each)
    assert len(NATURAL) == 33
    with_ends = found.values["perplexity/words_and_line_ends"]
    assert with_ends.value == pytest.approx(math.exp(33 / 12), rel=1e-12)
    assert with_ends.count == 12
    without = found.values["perplexity/words"]
    assert without.value == pytest.approx(math.exp(33 / 10), rel=1e-12)
    assert without.count == 10
    return found


def test_penn_treebank_is_read_as_natural_text_and_counted_as_published(tmp_path: Path) -> None:
    task = TASKS["ptb"]
    found = check_ptb(task, tmp_path)
    assert [example.text for example in found.work.examples] == [NATURAL]
    notes = task.load(DataSource(tmp_path)).notes
    assert notes == {
        "words": 10,
        "lines": 2,
        "detokenizer": "ptb, version 1",
        "round_trip": "invertible: all 2 pieces came back unchanged",
    }


@pytest.mark.parametrize("mistake", ["words", "lines", "nats"])
def test_a_planted_mistake_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mistake: str) -> None:
    task = TASKS["ptb"]
    right = task.judge

    def wrong(*given: object) -> Record:
        record = right(*given)  # type: ignore[arg-type]
        return record | {mistake: record[mistake] - 1}

    monkeypatch.setattr(task, "judge", wrong)
    with pytest.raises(AssertionError):
        check_ptb(task, tmp_path)


def test_the_tokenised_variant_reads_the_file_as_it_is(tmp_path: Path) -> None:
    found = evaluate(TASKS["ptb/tokenized"], write(tmp_path, "ptb", LINES), RunsOfBytes(), one_nat_each)
    assert found.work.examples[0].text == LINES
    assert found.values["perplexity/words"].value == pytest.approx(math.exp(len(LINES) / 10))
    assert TASKS["ptb/tokenized"].protocol()["text"] == "tokenised, as published"
    assert "round_trip" not in TASKS["ptb/tokenized"].load(DataSource(tmp_path)).notes


def test_stripped_lines_and_a_last_line_without_its_end(tmp_path: Path) -> None:
    source = write(tmp_path, "ptb", "it was n't\nwe can not")
    task = TASKS["ptb"]
    data = task.load(source)
    assert task.examples(data)[0].text == "it wasn't\nwe cannot"
    assert (data.notes["words"], data.notes["lines"]) == (6, 2)
    assert data.notes["detokenizer"] == "ptb, stripped lines, version 1"


def nats_by_bytes(tokenizer: RunsOfBytes, item: Item) -> list[float]:
    size_of = tokenizer.size_of()
    return [0.25 * size_of[int(token)] for token in item.continuation]


def test_perplexity_does_not_depend_on_the_tokenizer(tmp_path: Path) -> None:
    """Equal nats, in however many tokens."""
    source = write(tmp_path, "ptb", LINES * 40)
    found = []
    for seed in range(6):
        tokenizer = RunsOfBytes(1 + 2 * seed, seed)
        found.append(evaluate(TASKS["ptb"], source, tokenizer, partial(nats_by_bytes, tokenizer)))
    assert len({len(one.work.items[0].continuation) for one in found}) > 4
    values = [one.values["perplexity/words"].value for one in found]
    assert values == pytest.approx([values[0]] * 6, rel=1e-12)


@pytest.mark.parametrize(("max_length", "stride"), [(64, None), (64, 16), (7, 7), (5000, None)])
def test_a_text_read_in_many_windows_is_counted_once(tmp_path: Path, max_length: int, stride: int | None) -> None:
    """200 times 10 words on 2 lines, 33 bytes of a quarter nat each, in tokens of up to 3 bytes."""
    tokenizer = RunsOfBytes(3, 1)
    source = write(tmp_path, "ptb", LINES * 200)
    nats = partial(nats_by_bytes, tokenizer)
    found = evaluate(TASKS["ptb"], source, tokenizer, nats, max_length=max_length, stride=stride)
    assert len(found.records) == len(found.work.examples) == len({record["example"] for record in found.records})
    assert (len(found.records) > 1) == (max_length < 5000)
    for name, count in (("perplexity/words_and_line_ends", 2400), ("perplexity/words", 2000)):
        value = found.values[name]
        assert (value.count, value.value) == (count, pytest.approx(math.exp(0.25 * 33 * 200 / count), rel=1e-12))


def test_articles_read_in_many_windows_are_counted_once(tmp_path: Path) -> None:
    """3 + 3 × 800 words on 801 lines, and 6 words on 2; a byte a token, a nat a token."""
    task = TASKS["wikitext2/raw/articles"]
    source = write(tmp_path, "wikitext2/raw", " = One = \n" + " a b c \n" * 800 + " = Two = \n d e f \n")
    found = evaluate(task, source, RunsOfBytes(), one_nat_each, max_length=50)
    assert len({record["example"][:4] for record in found.records}) == 2 < len(found.records)
    whole = len("= One =\n" + "a b c\n" * 800 + "= Two =\nd e f\n")
    value = found.values["perplexity/words"]
    assert (value.count, value.value) == (2409, pytest.approx(math.exp(whole / 2409), rel=1e-12))
    assert found.values["perplexity/words_and_line_ends"].count == 2409 + 803


@pytest.mark.parametrize("max_length", [None, 6])
def test_words_that_cannot_be_spelt_are_counted_and_unk_of_the_text_is_not(
    tmp_path: Path, max_length: int | None
) -> None:
    """4 words of 10 are not known, one of them `<unk>` itself, so that 3 are counted; all 3 too where it is known."""
    source = write(tmp_path, "ptb", LINES * 300)
    words = frozenset({"it", "was", "we", "can", "not", "pay"})
    for known, unknown, count in ((words, UNKNOWN, 900), (words | {"<unk>"}, UNKNOWN, 900), (words, None, 0)):
        found = evaluate(
            TASKS["ptb/tokenized"], source, Words(known=known), one_nat_each, unknown=unknown, max_length=max_length
        )
        assert found.work.num_unknown == count


def test_wikitext_is_one_text_and_articles_are_several(tmp_path: Path) -> None:
    source = write(tmp_path, "wikitext2/raw", ARTICLES)
    whole, divided = TASKS["wikitext2/raw"], TASKS["wikitext2/raw/articles"]
    text = "\n= One =\n\na, b\n== Part ==\nc\n= Two =\nd\n"
    assert [example.text for example in whole.examples(whole.load(source))] == [text]
    parts = divided.examples(divided.load(source))
    assert [part.text for part in parts] == [text[: text.index("= Two")], text[text.index("= Two") :]]
    assert [dict(part.facts or {}) for part in parts] == [{"words": 12, "lines": 6}, {"words": 4, "lines": 2}]
    values = [evaluate(task, source, RunsOfBytes(), one_nat_each).values for task in (whole, divided)]
    assert {name: (v.value, v.count) for name, v in values[0].items()} == {
        name: (v.value, v.count) for name, v in values[1].items()
    }
    one = evaluate(divided, source, RunsOfBytes(), one_nat_each, limit=1).values
    assert one["perplexity/words"].count == 12


def test_articles_keep_every_line() -> None:
    lines = ARTICLES.splitlines(keepends=True)
    assert [line for article in articles(lines) for line in article] == lines
    assert articles([" = = no title = = \n", " a = b \n"]) == [[" = = no title = = \n", " a = b \n"]]


@pytest.mark.parametrize("name", sorted(FILE_OF))
def test_bad_files(tmp_path: Path, name: str) -> None:
    task, file = TASKS[name], FILE_OF[name][1]
    with pytest.raises(Missing, match=rf"^{name}: no {file} \(or .gz\) in .*; put it there"):
        task.load(DataSource(tmp_path))
    with pytest.raises(BadInput, match="is empty; a task needs at least one example"):
        task.load(write(tmp_path, name, " \n"))
    with pytest.raises(
        BadInput, match=rf"^{FILE_OF[name][0]}/{file}:2: has a carriage return; lines must end in a newline alone"
    ):
        task.load(write(tmp_path, name, " a \n b \r\n"))


def test_sentences_are_read_each_by_itself(tmp_path: Path) -> None:
    source = folder_with(tmp_path, "one_billion_word", **{FILE: "one two\nthree , four five\n"})
    task = TASKS["one_billion_word"]
    found = evaluate(task, source, RunsOfBytes(), one_nat_each)
    assert [example.text for example in found.work.examples] == ["one two\n", "three , four five\n"]
    both, words = found.values["perplexity/words_and_sentence_ends"], found.values["perplexity/words"]
    assert (both.value, both.count) == (pytest.approx(math.exp(26 / 8)), 8)
    assert (words.value, words.count) == (pytest.approx(math.exp(26 / 6)), 6)
    # Two sentences: 8 nats on 3, 18 on 5; shares 9.75 and 16.25, so that the sum's variance is 2 (1.75² + 1.75²).
    assert both.stderr == pytest.approx(both.value * math.sqrt(2 * 2 * 1.75**2) / 8)
    assert task.load(source).notes == {"sentences": 2, "words": 6}


def test_bad_sentences(tmp_path: Path) -> None:
    source = folder_with(tmp_path, "one_billion_word", **{FILE: "one\n\ntwo\n"})
    with pytest.raises(BadInput, match=f"^one_billion_word/{FILE}:2: is blank; each line must be a sentence"):
        TASKS["one_billion_word"].load(source)
    source = folder_with(tmp_path, "one_billion_word", **{FILE: "one\ntwo\r\n"})
    with pytest.raises(
        BadInput, match=f"^one_billion_word/{FILE}:2: has a carriage return; lines must end in a newline"
    ):
        TASKS["one_billion_word"].load(source)
    with pytest.raises(Missing, match="the hub has it in no form that this task reads"):
        TASKS["one_billion_word"].load(DataSource())


def test_the_error_of_one_text_is_over_its_blocks() -> None:
    """Two halves of equal size, a nat a token and three: the sum's error is that of two draws of 1,000 and 3,000."""
    record = text_record(Answer((1.0,) * BLOCK_TOKENS + (3.0,) * BLOCK_TOKENS, (False,) * 2 * BLOCK_TOKENS))
    assert record["block_nats"] == [1000.0, 3000.0]
    total, error = total_nats([record])
    assert total == 4000
    assert error == pytest.approx(math.sqrt(2 * 2) * 1000)
    assert total_nats([text_record(Answer((1.0,) * 10, (False,) * 10))]) == (10, None)


COUNTS = {
    "ptb": (78_669, 3_761),
    "ptb/tokenized": (78_669, 3_761),
    "ptb/validation": (70_390, 3_370),
    "wikitext2/validation": (213_886, 3_760),
    "wikitext2/raw": (241_211, 4_358),
    "wikitext2/raw/articles": (241_211, 4_358),
    "wikitext103/validation": (213_886, 3_760),
}


@pytest.mark.parametrize("name", COUNTS)
def test_published_counts(name: str) -> None:
    """With ends of lines: 82,430; 73,760; 217,646; 245,569."""
    folder, file = FILE_OF[name]
    raw = benchmark_text(f"{folder}/{file}")
    task = TASKS[name]
    data = task.load(DataSource(benchmark_data()))
    words, lines = COUNTS[name]
    assert (data.notes["words"], data.notes["lines"]) == (words, lines)
    if "tokenized" not in name:
        assert data.notes["round_trip"] == f"invertible: all {lines:,} pieces came back unchanged"
    examples = task.examples(data)
    assert len(examples) == (62 if name.endswith("articles") else 1), "as many as in EleutherAI's division"
    nats = 3.0 * (words + lines)
    shared = [{"nats": nats / len(examples), "tokens": 9, "block_nats": [1.0]} | dict(e.facts or {}) for e in examples]
    values = {value.name: value for value in task.values(shared)}
    assert values["perplexity/words_and_line_ends"].value == pytest.approx(math.exp(3))
    assert values["perplexity/words"].value == pytest.approx(math.exp(3 * (1 + lines / words)))
    assert raw.count("\n") == lines


def test_the_denominator_turns_one_published_number_into_the_other() -> None:
    """18.34 into 19.33, and 35.76 into 42.4."""
    for published, other, words, lines in ((18.34, 19.33, 241_211, 4_358), (35.76, 42.4, 78_669, 3_761)):
        record = {"nats": math.log(published) * (words + lines), "tokens": 9, "block_nats": [1.0]}
        values = {v.name: v.value for v in TASKS["ptb"].values([record | {"words": words, "lines": lines}])}
        assert values["perplexity/words_and_line_ends"] == pytest.approx(published)
        assert values["perplexity/words"] == pytest.approx(other, abs=0.06)


def test_the_hub_gives_the_published_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The hub strips the Treebank's lines, and empties WikiText's blank ones."""
    asked = []

    def treebank(*names: str, **more: str) -> list[dict[str, str]]:
        asked.append((names, more))
        return [{"sentence": "it was n't <unk>"}, {"sentence": "we can not pay $ N"}]

    fake_hub(monkeypatch, treebank)
    data = TASKS["ptb"].load(DataSource())
    local = TASKS["ptb"].load(write(tmp_path, "ptb", LINES))
    assert list(data.files.values()) == list(local.files.values())
    assert asked[0][1]["split"] == "test"

    def wikitext(*names: str, **more: str) -> list[dict[str, str]]:
        asked.append((names, more))
        return [{"text": line if line.strip() else ""} for line in ARTICLES.splitlines(keepends=True)]

    fake_hub(monkeypatch, wikitext)
    data = TASKS["wikitext103/raw"].load(DataSource())
    local = TASKS["wikitext103/raw"].load(write(tmp_path, "wikitext103/raw", ARTICLES))
    assert list(data.files.values()) == list(local.files.values())
    assert asked[-1] == (("Salesforce/wikitext", "wikitext-103-raw-v1"), {"split": "test"})
