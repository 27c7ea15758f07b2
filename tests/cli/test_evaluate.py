"""Benchmark tasks at the command line."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import launch
from evals.evaluate_tasks import TaskResult
from evals.metric import Metric
from evals.targets import Target
from tests.cli.command_line import Ended, Forks

TEXT = ("memory carries on ", "segue carries on and on ", "the memory of a segue ") * 3


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Files of two tasks, and a text to count n-grams in."""
    for name, content in (
        ("lambada/lambada_test.jsonl", "".join(json.dumps({"text": line.strip()}) + "\n" for line in TEXT)),
        ("ptb/ptb.test.txt", "".join(f" {line}\n" for line in TEXT)),
        ("ptb/ptb.train.txt", "".join(f" {line}\n" for line in TEXT[:2])),
    ):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_text(content)
    return tmp_path / "data"


def evaluate(segue: Forks, data: Path, *arguments: object) -> Ended:
    return segue.run("evaluate", "uniform:bytes", "--data-dir", data, *arguments, cwd=data.parent)


def test_list_names_every_task_and_set(segue: Forks, tmp_path: Path) -> None:
    listed = segue.run("evaluate", "--list", cwd=tmp_path)
    assert listed.code == 0, listed
    for name in ("lambada", "wsc273", "cbt_cn", "one_billion_word", "blimp", "gpt2-table"):
        assert f" {name} " in listed.out


def test_the_table_has_numbers_baselines_and_what_is_missing(segue: Forks, data: Path) -> None:
    tables = [option for suffix in ("md", "csv", "json", "png") for option in ("--table", f"t.{suffix}")]
    beside = ("--beside", f"kneser-ney:{data}/ptb/ptb.train.txt")
    found = evaluate(segue, data, "--tasks", "gpt2-table,ptb/tokenized", "--out", "kept.jsonl", *beside, *tables)
    assert found.code == 0, found
    assert "no data: wsc273: no wsc273.jsonl (or .gz) in" in found.out
    markdown = (data.parent / "t.md").read_text()
    row = next(line for line in markdown.splitlines() if line.startswith("| LAMBADA perplexity"))
    assert row.endswith("| 8.63 | 99 | 1-2 |  |")
    assert "| WSC273, partial | no data |" in markdown
    assert "† kneser-ney:ptb.train.txt cannot spell all words" in markdown
    whole = json.loads((data.parent / "t.json").read_text())
    assert [one["target"] for one in whole["targets"]] == ["uniform:bytes", "kneser-ney:ptb.train.txt"]
    metrics = {m["name"]: m for task in whole["targets"][0]["tasks"] for m in task["metrics"]}
    size = len((data / "ptb" / "ptb.test.txt").read_bytes())
    words = metrics["ptb/tokenized/perplexity/words"]
    assert words["value"] == pytest.approx(256 ** (size / words["count"]))
    assert (data.parent / "t.png").read_bytes().startswith(b"\x89PNG")
    lines = list(csv.DictReader((data.parent / "t.csv").open()))
    (line,) = (one for one in lines if one["metric"] == words["name"] and one["target"] == "uniform:bytes")
    assert (float(line["value"]), int(line["count"])) == (words["value"], words["count"]), "to the last digit"
    assert "no data: wsc273" in next(one["missing"] for one in lines if one["task"] == "wsc273")
    assert (line["unknown_tokens"], line["tokenizer_lossless"], line["limit"]) == ("0", "True", "")
    assert {one["whole_test_set"] for one in lines if one["metric"] == "lambada/perplexity"} == {"False"}
    assert [one["gpt2"] for one in lines if one["metric"] == "lambada/perplexity"] == ["8.63"] * 2
    kept = (data.parent / "kept.jsonl").read_bytes()
    again = evaluate(segue, data, "--tasks", "gpt2-table,ptb/tokenized", "--out", "kept.jsonl", *beside)
    assert again.code == 0, again
    assert f"kept.jsonl: goes on after the {len(kept.splitlines()) - 3} results that it has" in again.out
    assert (data.parent / "kept.jsonl").read_bytes() == kept


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tasks", "lamda"], "--tasks lamda: there is no such task; did you mean lambada"),
        (["--tasks", "gpt2_table"], "--tasks gpt2_table: there is no such task; did you mean gpt2-table"),
        (["--tasks", "lambada", "--out", "t.md", "--table", "t.md"], "--table t.md: is --out too; give them two files"),
        (["--tasks", "lambada", "--data-dir", "none"], "--data-dir none: there is no such directory"),
        (["--tasks", "lambada", "--table", "t.txt"], "--table t.txt: must end in one of .md, .json, .csv, .png"),
        (["--tasks", "lambada", "--table", "no/t.md"], "--table no/t.md: cannot be written"),
        (["--tasks", "lambada", "--out", "no/r.jsonl"], "--out no/r.jsonl: cannot be written"),
        (["--tasks", "lambada", "--json", "r.json"], "--json: is of held-out data alone; leave out --tasks"),
        (["--tasks", "piqa"], "--tasks: none of them gave a number; what stands under the table says why"),
        (["--tasks", ","], "--tasks: names no task; `evaluate --list` names all"),
        (["--out", "r.jsonl"], "--data-dir: is of benchmark tasks alone; say which with --tasks"),
        (["--tasks", "lambada", "--beside", "kneser-ney:none.txt"], "'none.txt' does not exist; give the text"),
        (["--tasks", "lambada", "--stride", 3], "uniform:bytes: dtype, context and stride are of models of windows"),
        (["--tasks", "lambada", "--context", 3], "uniform:bytes: dtype, context and stride are of models of windows"),
        (["--tasks", "lambada", "--memory-length", 5], "uniform:bytes: memory_length is of Segue's runs; leave it out"),
    ],
)
def test_bad_input_is_answered(segue: Forks, data: Path, arguments: list[object], message: str) -> None:
    refused = evaluate(segue, data, *arguments)
    assert refused.code == 2, refused
    assert message in refused.one_message()


def test_every_option_reaches_the_evaluation(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Target, list[str], dict[str, Any]]] = []

    def note(target: Target, tasks: list[str], source: Any, results: Any, **settings: Any) -> list[TaskResult]:
        asked.append((target, tasks, settings))
        return [
            TaskResult("lambada", "", (Metric("lambada/perplexity", 2.0, "", "lower", 3, None, {"task": "lambada"}),))
        ]

    monkeypatch.setattr("cluster.evaluation.evaluate_tasks", note)
    options = "--limit 3 --workers 2 --rows 5 --stride 7 --context 9 --dtype bfloat16 --checkpoint 4 --memory-length 6"
    more = "--segment-length 8 --clamp-length 10 --same-length --kernel linear_cross_entropy=reference"
    found = CliRunner().invoke(
        launch.app, ["evaluate", "mine", "--tasks", "lambada", "--data-dir", str(data), *options.split(), *more.split()]
    )
    assert found.exit_code == 0, found.output
    ((target, tasks, settings),) = asked
    assert tasks == ["lambada"]
    assert (settings.pop("progress") is not None, settings) == (True, {"limit": 3, "workers": 2, "rows": 5})
    assert target == Target(
        "mine", checkpoint=4, segment_length=8, memory_length=6, clamp_length=10, same_length=True, stride=7,
        kernels=("linear_cross_entropy=reference",), dtype="bfloat16", context=9,
    )  # fmt: skip


def test_two_workers_and_a_limit(segue: Forks, data: Path) -> None:
    found = {}
    for workers in (1, 2):
        table, options = f"{workers}.json", ("--tasks", "lambada", "--limit", 4, "--workers", workers)
        ended = evaluate(segue, data, *options, "--table", table)
        assert ended.code == 0, ended
        found[workers] = json.loads((data.parent / table).read_text())
    assert found[1] == found[2]
    metrics = found[1]["targets"][0]["tasks"][0]["metrics"]
    assert {(one["count"], one["protocol"]["limit"]) for one in metrics} == {(4, 4)}


def test_a_baseline_that_is_not_there_is_found_before_anything_is_scored(segue: Forks, data: Path) -> None:
    refused = evaluate(segue, data, "--tasks", "lambada", "--out", "r.jsonl", "--beside", "kneser-ney:none.txt")
    assert refused.code == 2, refused
    assert not (data.parent / "r.jsonl").exists()


def test_only_runs_have_held_out_data(segue: Forks, tmp_path: Path) -> None:
    refused = segue.run("evaluate", "uniform:bytes", cwd=tmp_path)
    assert refused.code == 2, refused
    assert "uniform:bytes: is no run's directory, and only runs have held-out data; say which" in refused.one_message()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty; a task needs at least one example"),
        (
            '{"text": "memory carries on", "label": 3}\n',
            "lambada_test.jsonl:1: unknown field 'label'; the fields are text",
        ),
        ("memory carries on\n", "lambada_test.jsonl:1: is no JSON"),
        ('{"text": "memory"}\n', "lambada_test.jsonl:1: text 'memory' has no last word after another"),
    ],
)
def test_bad_files_are_answered_by_their_place(segue: Forks, data: Path, content: str, message: str) -> None:
    (data / "lambada" / "lambada_test.jsonl").write_text(content)
    refused = evaluate(segue, data, "--tasks", "lambada")
    assert refused.code == 2, refused
    assert message in refused.one_message()
