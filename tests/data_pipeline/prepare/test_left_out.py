"""What was left out or altered can be found: its name stands beside the manifest."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cluster.prepare import prepare as prepare_shown
from cluster.ray_session import ray_session
from data_pipeline.prepare import LocalExecutor, prepare
from data_pipeline.prepare.left_out import LEFT_OUT_FILE, LeftOutFile
from data_pipeline.prepare.ray_executor import RayExecutor
from data_pipeline.sources.document import MOST_NAMED, LeftOut, Report
from data_pipeline.text import TextConfig
from tests.data_pipeline.corpora import text_config, write_files


def left_out_of(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / LEFT_OUT_FILE).read_text(encoding="utf-8").splitlines()]


def made(config: TextConfig, workers: int = 1) -> dict[str, int]:
    with LocalExecutor(workers) as executor:
        return prepare(config, executor=executor, report=lambda _: None).report


def lines_config(out: Path, corpus: Path, **changes: Any) -> TextConfig:
    """JSON lines with ids of their own, a byte tokenizer."""
    inner = {"kind": "jsonl", "directory": str(corpus), "train": ["*.jsonl"], "id_field": "name", "held_out": 0}
    return text_config(out, corpus, corpus=inner, tokenizer={"kind": "byte"}, **changes)


def write_lines(path: Path, lines: list[bytes]) -> dict[bytes, int]:
    """Where each line begins."""
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"\n".join(lines))
    return {line: sum(len(one) + 1 for one in lines[:number]) for number, line in enumerate(lines)}


def test_each_document_is_named_with_its_reason_file_and_byte(tmp_path: Path) -> None:
    bad = [b"no json", b'{"name": "d", "text": " "}', b'{"name": "e", "text": "\\ud800"}', b'{"text": "no id"}']
    good = b'{"name": "a", "text": "words"}'
    begins = write_lines(tmp_path / "corpus" / "some.jsonl", [good, *bad])
    config = lines_config(tmp_path / "out", tmp_path / "corpus")
    assert made(config) == {"empty": 1, "lone_surrogate": 1, "no_id": 1, "not_json": 1}
    reasons, names = ["not_json", "empty", "lone_surrogate", "no_id"], [None, "d", "e", None]
    assert left_out_of(tmp_path / "out") == [
        {"reason": reason, "id": name or f"some.jsonl:{begins[line]}", "file": "some.jsonl", "start": begins[line]}
        for reason, name, line in zip(reasons, names, bad, strict=True)
    ]


def test_files_are_named(tmp_path: Path) -> None:
    corpus = write_files(tmp_path / "corpus")
    (corpus / "empty.txt").write_bytes(b"")
    (corpus / "wrong.txt").write_bytes(b"\xc3(")
    made(text_config(tmp_path / "out", corpus))
    found = {one["reason"]: one["file"] for one in left_out_of(tmp_path / "out")}
    assert found == {"empty": "empty.txt", "invalid_utf8": "wrong.txt"}
    made(text_config(tmp_path / "none", write_files(tmp_path / "whole")))
    assert left_out_of(tmp_path / "none") == []


def test_the_last_line_of_prepare_names_the_file(tmp_path: Path) -> None:
    corpus, said = write_files(tmp_path / "corpus"), io.StringIO()

    def last_line(out: str) -> str:
        console = Console(file=said, width=80)
        prepare_shown(text_config(tmp_path / out, corpus), executor="local", workers=1, console=console)
        return said.getvalue().splitlines()[-1]

    assert last_line("whole").startswith("left out or altered: nothing; vocabulary ")
    (corpus / "wrong.txt").write_bytes(b"\xc3(")
    named = f"(the first of each reason are named in {tmp_path}/out/left_out.jsonl)"
    assert last_line("out").startswith(f"left out or altered: 1 invalid_utf8 {named}; vocabulary ")


def test_what_steps_drop_or_alter_is_named(tmp_path: Path) -> None:
    lines = [b'{"name": "%d", "text": "text number %d of ours"}' % (n, n) for n in range(5)]
    mail = b'{"name": "mail", "text": "to ann@ours.org and bob@ours.org"}'
    begins = write_lines(tmp_path / "corpus" / "some.jsonl", [*lines, lines[3], mail])
    steps = [{"kind": "exact_duplicates"}, {"kind": "redact"}]
    report = made(lines_config(tmp_path / "out", tmp_path / "corpus", steps=steps))
    found = left_out_of(tmp_path / "out")
    assert [(one["reason"], one["id"]) for one in found] == list(zip(report, ["3", "mail"], strict=True))
    assert found[0]["start"] == sum(len(line) + 1 for line in lines)
    assert found[1]["start"] == begins[mail]
    assert report[found[1]["reason"]] == 2, "counted each, named once"


@pytest.mark.parametrize("kind", ["byte", "bpe"])
def test_workers_kills_and_repairs_make_no_difference(kind: str, tmp_path: Path) -> None:
    corpus = write_files(tmp_path / "corpus")
    for number in range(9):
        (corpus / f"wrong-{number}.txt").write_bytes(b"\xc3(" * 900)
    tokenizer = {"kind": "bpe", "vocab_size": 300} if kind == "bpe" else {"kind": "byte"}
    config = text_config(tmp_path / "out", corpus, tokenizer=tokenizer)
    made(config)
    expected = (tmp_path / "out" / LEFT_OUT_FILE).read_bytes()
    assert expected.count(b"\n") == 9
    made(text_config(tmp_path / "two", corpus, tokenizer=tokenizer), workers=2)
    assert (tmp_path / "two" / LEFT_OUT_FILE).read_bytes() == expected
    (tmp_path / "out" / LEFT_OUT_FILE).unlink()
    (tmp_path / "out" / "manifest.json").unlink()
    sorted((tmp_path / "out" / "work").glob("piece-*.json"))[1].unlink()
    made(config)
    assert (tmp_path / "out" / LEFT_OUT_FILE).read_bytes() == expected


@pytest.mark.slow
def test_ray_writes_the_same(tmp_path: Path) -> None:
    corpus = write_files(tmp_path / "corpus")
    (corpus / "wrong.txt").write_bytes(b"\xc3(")
    made(text_config(tmp_path / "out", corpus))
    with ray_session(2, None), RayExecutor(2) as executor:
        prepare(text_config(tmp_path / "ray", corpus), executor=executor, report=lambda _: None)
    assert (tmp_path / "ray" / LEFT_OUT_FILE).read_bytes() == (tmp_path / "out" / LEFT_OUT_FILE).read_bytes()


def test_the_first_of_each_reason_and_piece_are_named(tmp_path: Path) -> None:
    lines = [
        b'{"name": "a", "text": "words"}',
        *[b"%d" % number for number in range(300)],
        b'{"name": "b", "text": ""}',
    ]
    write_lines(tmp_path / "corpus" / "some.jsonl", lines)
    config = lines_config(tmp_path / "out", tmp_path / "corpus")
    assert made(config) == {"empty": 1, "not_json": 300}
    found = left_out_of(tmp_path / "out")
    assert [one["reason"] for one in found] == ["not_json"] * MOST_NAMED + ["empty"]
    assert [one["start"] for one in found[:3]] == [len(lines[0]) + 1, len(lines[0]) + 3, len(lines[0]) + 5]


def test_a_name_as_long_as_a_document_is_cut(tmp_path: Path) -> None:
    good, empty = b'{"name": "a", "text": "words"}', b'{"name": "%s", "text": ""}'
    write_lines(tmp_path / "corpus" / "some.jsonl", [good, *(empty % (b"n" * length) for length in (1000, 1001, 5000))])
    assert made(lines_config(tmp_path / "out", tmp_path / "corpus")) == {"empty": 3}
    assert [one["id"] for one in left_out_of(tmp_path / "out")] == ["n" * 1000, *["n" * 999 + "…"] * 2]
    report = Report()
    report.note("empty", "\udce9" * 5000)
    assert report.named[0].id == ("\\udce9" * 200)[:999] + "…"


def test_the_file_has_a_bound_whatever_the_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_pipeline.prepare.left_out.MOST_IN_ALL", 5)
    named = LeftOutFile()
    for piece in range(4):
        named.add([LeftOut(reason="empty", id=f"{piece}:{number}") for number in range(2)])
        named.add([LeftOut(reason="nul")])
    named.write(tmp_path)
    found = [one.get("id") for one in left_out_of(tmp_path)]
    assert [one for one in found if one] == ["0:0", "0:1", "1:0", "1:1", "2:0"]
    assert len(found) == 9
