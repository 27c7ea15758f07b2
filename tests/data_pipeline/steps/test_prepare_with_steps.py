"""Preparing with steps: what stays is in the shards, why the rest is not in the manifest; none of it without steps."""

import json
from pathlib import Path
from typing import Any

import pytest

from data_pipeline.config import BadInput, Refused
from data_pipeline.manifest import Manifest
from data_pipeline.prepare import LocalExecutor, Progress, prepare
from data_pipeline.sources import folder
from data_pipeline.sources.giants import GIANT
from data_pipeline.text import TextConfig
from tests.data_pipeline.corpora import content_of, text_config

SHORT = {"kind": "gopher_quality", "least_words": 3, "least_mean_word_length": 1, "least_stop_words": 0}
STEPS: list[dict[str, Any]] = [{"kind": "normalise"}, SHORT, {"kind": "exact_duplicates"}, {"kind": "redact"}]


def run(config: TextConfig, workers: int = 1) -> tuple[Manifest, list[Progress]]:
    events: list[Progress] = []
    with LocalExecutor(workers) as executor:
        return prepare(config, executor=executor, report=events.append), events


def config_of(directory: Path, corpus: Path, steps: list[dict[str, Any]], **changes: Any) -> TextConfig:
    fields = {"kind": "files", "directory": str(corpus), "train": ["*.txt"], "document": "line", "held_out": 0}
    return text_config(directory, corpus, corpus=fields, steps=steps, shard_bytes=600, **changes)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    (tmp_path / "corpus").mkdir()
    for number in range(3):
        lines = [f"line {number * 20 + place} goes from a{place}@b.org to c  " for place in range(20)]
        lines[3:3] = ["too short", "", "line 7 goes from a7@b.org to c"]
        (tmp_path / "corpus" / f"{number}.txt").write_text("\n".join(lines) + "\n")
    return tmp_path / "corpus"


def test_shards_hold_what_the_steps_leave(corpus: Path, tmp_path: Path) -> None:
    config = config_of(tmp_path / "out", corpus, STEPS)
    manifest, events = run(config)
    tokenizer = config.load_tokenizer()
    texts = [tokenizer.decode(ids).removesuffix("<eos>") for ids, _ in config.shards().documents()]
    expected = [f"line {number} goes from <email> to c" for number in range(60) if number != 7]
    assert sorted(texts) == sorted([*expected, "line 7 goes from <email> to c"])
    assert texts.index("line 7 goes from <email> to c") == 3, "the first copy is the one before line 3"
    assert [num_bytes for _, num_bytes in config.shards().documents()] == [len(text) for text in texts]
    assert manifest.report == {
        "empty": 3,
        "exact_duplicates/duplicate": 3,
        "gopher_quality/few_words": 3,
        "normalise/white_space": 59,
        "redact/email": 60,
    }
    (last,) = [event for event in events if event.stage == "clean" and event.done == event.total]
    assert last.count == 66
    assert not (tmp_path / "out" / "work" / "steps").exists()


def test_workers_and_kills_make_no_difference(corpus: Path, tmp_path: Path) -> None:
    run(config_of(tmp_path / "one", corpus, STEPS))
    run(config_of(tmp_path / "two", corpus, STEPS), workers=2)
    assert content_of(tmp_path / "one") == content_of(tmp_path / "two")

    class Killed(Exception):
        pass

    for stage in ("clean", "scan", "encode"):

        def stop(event: Progress, stage: str = stage) -> None:
            if event.stage == stage and event.done == 2:
                raise Killed

        with LocalExecutor(1) as executor, pytest.raises(Killed):
            prepare(config_of(tmp_path / "killed", corpus, STEPS), executor=executor, report=stop)
    run(config_of(tmp_path / "killed", corpus, STEPS))
    assert content_of(tmp_path / "one") == content_of(tmp_path / "killed")


def test_without_steps_nothing_tells_of_them(corpus: Path, tmp_path: Path) -> None:
    config = config_of(tmp_path / "out", corpus, [])
    _, events = run(config)
    assert "steps" not in config.identity()
    assert "steps" not in (tmp_path / "out" / "manifest.json").read_text()
    assert "clean" not in {event.stage for event in events}


def test_other_steps_are_refused_by_name(corpus: Path, tmp_path: Path) -> None:
    run(config_of(tmp_path / "out", corpus, STEPS))
    other = [{"kind": "normalise", "unicode": "NFKC"}, *STEPS[1:]]
    with pytest.raises(Refused, match=r"data\.steps\.0 normalise\.unicode: NFC -> NFKC"):
        run(config_of(tmp_path / "out", corpus, other))
    with pytest.raises(Refused, match=r"data\.steps\.3 redact"):
        run(config_of(tmp_path / "out", corpus, STEPS[:3]))


def test_evaluation_files_may_move_but_not_change(corpus: Path, tmp_path: Path) -> None:
    def leak(directory: Path) -> TextConfig:
        step = {"kind": "decontaminate", "directory": str(directory), "evaluation": ["*.jsonl"], "words": 5}
        return config_of(tmp_path / "out", corpus, [step])

    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.jsonl").write_text(json.dumps("Line 41 goes from a1borg") + "\n")
    manifest, _ = run(leak(tmp_path / "a"))
    assert manifest.report["decontaminate/evaluation_text"] == 1
    assert str(tmp_path) not in (tmp_path / "out" / "manifest.json").read_text()
    (tmp_path / "a").rename(tmp_path / "b")
    assert run(leak(tmp_path / "b"))[0] == manifest
    with pytest.raises(BadInput, match=r"files \*\.jsonl: no such file"):
        run(leak(tmp_path / "a"))
    (tmp_path / "b" / "x.jsonl").write_text(json.dumps("Line 42 goes from a1borg") + "\n")
    with pytest.raises(Refused, match="prepared from other files"):
        run(leak(tmp_path / "b"))


def test_evaluation_text_that_changed_after_a_kill_is_another_outcome(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of pieces too that were scanned and encoded before, and whose files stand still."""
    monkeypatch.setattr(folder, "SETTLED_NS", 0)
    step = {"kind": "decontaminate", "directory": str(tmp_path), "evaluation": ["x.jsonl"], "words": 5}

    def stop(event: Progress) -> None:
        if event.stage == "encode" and event.done == 3:
            raise InterruptedError

    (tmp_path / "x.jsonl").write_text(json.dumps("Line 41 goes from a1borg") + "\n")
    with LocalExecutor(1) as executor, pytest.raises(InterruptedError):
        prepare(config_of(tmp_path / "killed", corpus, [step]), executor=executor, report=stop)
    (tmp_path / "x.jsonl").write_text(json.dumps("Line 42 goes from a2borg") + "\n")
    manifest, _ = run(config_of(tmp_path / "killed", corpus, [step]))
    assert manifest == run(config_of(tmp_path / "fresh", corpus, [step]))[0]
    assert content_of(tmp_path / "killed") == content_of(tmp_path / "fresh")


def test_steps_that_leave_nothing_say_why(corpus: Path, tmp_path: Path) -> None:
    strict = {"kind": "gopher_quality"}
    with pytest.raises(BadInput, match=r"all 66 documents were dropped \(66 gopher_quality/few_words\)"):
        run(config_of(tmp_path / "out", corpus, [strict]))
    c4 = {"kind": "c4_quality"}
    with pytest.raises(BadInput, match=r"no document for the split train .*66 c4_quality/few_sentences"):
        run(config_of(tmp_path / "out2", corpus, [c4]))


@pytest.mark.slow
def test_a_giant_document_is_cleaned_as_a_whole(tmp_path: Path) -> None:
    giant = "word " * (GIANT // 5 + 1) + "end"
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "a.txt").write_text(f"first\n{giant} \nfirst\n")
    config = config_of(
        tmp_path / "out", tmp_path / "corpus", [{"kind": "normalise"}, STEPS[2]], tokenizer={"kind": "byte"}
    )
    manifest, _ = run(config)
    assert manifest.report == {"exact_duplicates/duplicate": 1, "normalise/white_space": 1}
    assert [num_bytes for _, num_bytes in config.shards().documents()] == [5, len(giant)]
