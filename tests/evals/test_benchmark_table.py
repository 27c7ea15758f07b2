"""The table: what is shown where, and what the numbers need to be read."""

import csv
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from evals.benchmark_table import GPT2_TABLE, LEGEND, Column, Report, measured, number, tables
from evals.evaluate_tasks import TaskResult
from evals.metric import Metric
from evals.table_files import write


def metric(name: str, value: float, *, unknown: int = 0) -> Metric:
    protocol = {"task": name.partition("/")[0], "unknown_tokens": unknown}
    return Metric(name, value, "%", "higher", 273, 3.0, protocol)


def report(*beside: str) -> Report:
    main = TaskResult("wsc273", "", (metric("wsc273/accuracy/partial", 61.25), metric("wsc273/accuracy/full", 59.5)))
    gone = TaskResult("text8", "", missing="no data: text8: no text8 in data/text8")
    others = [
        Column(name, [TaskResult("wsc273", "", (metric("wsc273/accuracy/partial", 50.5, unknown=7),)), gone])
        for name in beside
    ]
    return Report("title", Column("mine", [main, gone]), GPT2_TABLE, others)


def shown(made: Report, width: int) -> str:
    console = Console(width=width, record=True, file=StringIO())
    for table in tables(made, width):
        console.print(table)
    return console.export_text()


def test_lines_have_their_published_numbers() -> None:
    wsc, text8 = report("kneser-ney:a").published()
    assert wsc == ("WSC273, partial", "61.25% ± 3.00", "273", "50.50% †", "70.70", "63.7", "92+", "")
    assert text8 == ("text8 bits/character", "no data", "", "no data", "0.98", "1.08", "", "1.08")
    assert report().further() == [("wsc273/accuracy/full", "59.50% ± 3.00", "273")]


def test_reasons_are_given_once_and_unknown_words_are_told() -> None:
    first, second = report("kneser-ney:a").notes()
    assert first == "no data: text8: no text8 in data/text8"
    assert second.startswith("† kneser-ney:a cannot spell all words (unknown: 7 of wsc273)")
    assert report().notes() == [first]


def test_who_has_no_number_leaves_those_of_others_and_says_why() -> None:
    gone = TaskResult("wsc273", "", missing="not asked: wsc273: too long")
    has = TaskResult("wsc273", "", (metric("wsc273/accuracy/partial", 50.5), metric("wsc273/accuracy/full", 40.0)))
    made = Report("title", Column("mine", [gone]), GPT2_TABLE, [Column("theirs", [has])])
    assert made.published()[0][1:4] == ("not asked", "", "50.50%")
    assert made.further() == [("wsc273/accuracy/full", "not asked", "", "40.00%")]
    turned = Report("title", Column("theirs", [has]), GPT2_TABLE, [Column("mine", [gone])])
    assert turned.published()[0][1:4] == ("50.50% ± 3.00", "273", "not asked")
    assert turned.further() == [("wsc273/accuracy/full", "40.00% ± 3.00", "273", "not asked")]


@pytest.mark.parametrize("width", [80, 120, 200])
def test_no_number_is_cut_at_any_width(width: int) -> None:
    text = shown(report("kneser-ney:one.txt", "kneser-ney:another.txt"), width)
    for value in ("61.25% ± 3.00", "50.50% †", "59.50% ± 3.00", "70.70", "92+", "1.08", "no data"):
        assert value in text, (width, text)
    assert all(len(line) <= width for line in text.splitlines())


def test_targets_that_read_otherwise_are_told_apart() -> None:
    def column(name: str, **reads: object) -> Column:
        number = metric("wsc273/accuracy/partial", 50.5)
        number = replace(number, protocol={**number.protocol, "stride": 32, "model": reads})
        return Column(name, [TaskResult("wsc273", "", (number,))])

    window, memory = column("a", context=64), column("b", target_length=8, memory_length=16)
    assert Report("title", window, GPT2_TABLE, [memory]).notes() == [
        "a reads 64 tokens at a time, in running text with a stride of 32",
        "b reads 8 tokens at a time, with a memory of 16",
    ]
    assert Report("title", window, GPT2_TABLE, [column("c", context=64)]).notes() == []


def test_a_part_of_a_test_set_is_marked() -> None:
    (full,) = (one for one in report().published() if one[0].startswith("WSC273"))
    assert full[2] == "273"
    part = replace(metric("wsc273/accuracy/partial", 60.0), count=5)
    made = Report("title", Column("mine", [TaskResult("wsc273", "", (part,))]), GPT2_TABLE)
    assert made.published()[0][2] == "5 ‡"
    assert made.notes() == ["‡ WSC273, partial: not the test set of the published numbers, whose n is 273"]


def test_a_tokenizer_that_loses_blanks_is_marked_where_every_byte_counts() -> None:
    lossy = {"task": "enwik8", "unknown_tokens": 0, "tokenizer_lossless": False}
    bits = Metric("enwik8/bits_per_byte", 1.25, "bits/byte", "lower", 5_000_000, None, lossy)
    words = replace(bits, name="enwik8/perplexity", unit="")
    spelt = replace(bits, protocol=lossy | {"tokenizer_lossless": True})
    assert [measured(one) for one in (bits, words, spelt)] == ["1.25 †", "1.25", "1.25"]
    made = Report("title", Column("mine", [TaskResult("enwik8", "", (bits,))]), GPT2_TABLE)
    assert made.published()[0][1] == "1.25 †"
    assert made.notes()[0].startswith("† mine cannot spell all words (unknown: 0 of enwik8) or blanks")


def test_numbers() -> None:
    assert (number(18.344), number(1234567.0), number(0.934)) == ("18.34", "1.235e+06", "0.93")


def test_cut_contexts_are_told_of_each_target_and_stand_in_the_csv(tmp_path: Path) -> None:
    def column(name: str, truncated: int) -> Column:
        number = metric("lambada/perplexity", 9.5)
        more = {"truncated": truncated, "examples": 4000, "limit": 4000}
        number = replace(number, protocol={**number.protocol, **more})
        return Column(name, [TaskResult("lambada", "", (number, replace(number, name="lambada/accuracy/word")))])

    made = Report("title", column("mine", 1040), (), [column("whole", 0), column("other", 3)])
    assert made.notes() == [
        "mine: context cut in 1,040 of 4,000 examples of lambada",
        "other: context cut in 3 of 4,000 examples of lambada",
    ]
    write(tmp_path / "t.csv", made)
    lines = list(csv.DictReader((tmp_path / "t.csv").open()))
    assert [line["truncated"] for line in lines] == ["1040", "1040", "0", "0", "3", "3"]
    assert {line["limit"] for line in lines} == {"4000"}
    write(tmp_path / "t.md", made)
    text = (tmp_path / "t.md").read_text()
    assert all(f"{note}.\n" in text for note in made.notes())


def test_a_csv_says_what_the_marks_say(tmp_path: Path) -> None:
    made = report("kneser-ney:a")
    write(tmp_path / "t.csv", made)
    write(tmp_path / "t.md", made)
    lines = {(line["target"], line["metric"]): line for line in csv.DictReader((tmp_path / "t.csv").open())}
    assert lines["kneser-ney:a", "wsc273/accuracy/partial"]["unknown_tokens"] == "7"
    assert lines["mine", "wsc273/accuracy/partial"]["whole_test_set"] == "True"
    assert lines["mine", "wsc273/accuracy/full"]["whole_test_set"] == "", "no n of it is published"
    assert lines["mine", ""]["missing"] == "no data: text8: no text8 in data/text8"
    text = (tmp_path / "t.md").read_text()
    assert "| 50.50% † |" in text
    assert "† kneser-ney:a cannot spell all words (unknown: 7 of wsc273)" in text
    assert LEGEND in text
