"""Text of evaluation files: what is found, what is a phrase, which files can be read."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import zstandard

from data_pipeline.config import BadInput
from tests.data_pipeline.steps.corpus import clean, files_of_lines, steps

QUESTION = "Which of the following thirteen words, said the judge, is not in this question?"
LEAK = "so: WHICH of the following thirteen words said the judge is NOT in this -- indeed"
NO_LEAK = "so: which of the following thirteen words said the judge is in this question indeed"
OTHER = "Some other text that has nothing to do with any of these questions, but is long enough."


def step(directory: Path, *files: str, **fields: Any) -> dict[str, Any]:
    return {"kind": "decontaminate", "directory": str(directory), "evaluation": list(files), **fields}


def run(tmp_path: Path, lines: list[str], *files: str, **fields: Any) -> tuple[list[str], dict[str, int]]:
    corpus = files_of_lines(tmp_path / "corpus", lines)
    return clean(corpus, steps(step(tmp_path / "evaluation", *files, **fields)), tmp_path / "work")


@pytest.fixture
def evaluation(tmp_path: Path) -> Path:
    (tmp_path / "evaluation").mkdir()
    return tmp_path / "evaluation"


def test_thirteen_shared_words_are_a_leak_and_twelve_are_not(evaluation: Path, tmp_path: Path) -> None:
    (evaluation / "a.txt").write_text(f"{QUESTION}\n")
    texts, report = run(tmp_path, [OTHER, LEAK, NO_LEAK, OTHER], "a.txt")
    assert texts == [OTHER, NO_LEAK, OTHER]
    assert report == {"decontaminate/evaluation_text": 1}
    assert run(tmp_path, [LEAK, OTHER], "a.txt", words=14)[0] == [LEAK, OTHER]


def test_what_many_documents_have_is_a_phrase(evaluation: Path, tmp_path: Path) -> None:
    (evaluation / "a.txt").write_text(QUESTION)
    ten, eleven = [f"{LEAK} {number}" for number in range(10)], [f"{LEAK} {number}" for number in range(11)]
    assert run(tmp_path, [*ten, OTHER, f"{NO_LEAK}"], "a.txt")[0] == [OTHER, NO_LEAK]
    assert run(tmp_path, [*eleven, OTHER], "a.txt")[0] == [*eleven, OTHER]
    twice = [f"{LEAK} {LEAK} {number}" for number in range(10)]
    assert run(tmp_path, [*twice, OTHER], "a.txt")[0] == [OTHER], "a document counts once"


@pytest.mark.parametrize("kind", [".txt", ".json", ".jsonl"])
@pytest.mark.parametrize("compression", ["", ".gz", ".zst"])
def test_every_kind_of_file(kind: str, compression: str, evaluation: Path, tmp_path: Path) -> None:
    record = json.dumps({"id": "a", "of": [{"question": QUESTION}, 3, None]})
    data = {".txt": f"x\n{QUESTION}", ".json": record, ".jsonl": f"{record}\n\n{record}\n"}[kind].encode()
    data = {"": data, ".gz": gzip.compress(data), ".zst": zstandard.compress(data)}[compression]
    (evaluation / f"a{kind}{compression}").write_bytes(data)
    assert run(tmp_path, [LEAK, OTHER], "*")[0] == [OTHER]


def test_fields_of_json(evaluation: Path, tmp_path: Path) -> None:
    (evaluation / "a.jsonl").write_text(json.dumps({"question": QUESTION, "source": OTHER}) + "\n")
    assert run(tmp_path, [LEAK, OTHER, NO_LEAK], "a.jsonl")[0] == [NO_LEAK]
    assert run(tmp_path, [LEAK, OTHER, NO_LEAK], "a.jsonl", fields=["question"])[0] == [OTHER, NO_LEAK]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("b.txt", None, r"files b\.txt: no such file in .*correct the path"),
        ("b.txt", b" \n", r"b\.txt: is empty"),
        ("b.txt", b"only a few words", r"b\.txt: no text has 13 words; lower words"),
        ("b.txt", b"\xff\xfe", r"b\.txt: cannot be read .*repair the file"),
        ("b.csv", b"a,b", r"files b\.csv: must end in \.txt, \.jsonl or \.json"),
        ("b.jsonl", b'{"a": "b"}\n{', r"b\.jsonl:2: is not JSON"),
        ("b.jsonl", b"[1, 2]", r"b\.jsonl: there is no string in it; correct fields"),
        ("b.txt.gz", b"\x1f\x8b\x08", r"b\.txt\.gz: cannot be read"),
        ("b.txt.gz", b"plain", r"b\.txt\.gz: cannot be read"),
        ("b.txt.zst", zstandard.compress(b"x" * 100)[:-2], r"b\.txt\.zst: cannot be read"),
    ],
)
def test_files_that_cannot_be_used(
    name: str, data: bytes | None, message: str, evaluation: Path, tmp_path: Path
) -> None:
    (evaluation / "a.txt").write_text(QUESTION)
    if data is not None:
        (evaluation / name).write_bytes(data)
    with pytest.raises(BadInput, match=f"data.steps decontaminate: .*{message}"):
        run(tmp_path, [LEAK], "a.txt", name)


def test_other_evaluation_text_is_another_outcome(evaluation: Path, tmp_path: Path) -> None:
    """In the work folder of an earlier run, of which nothing must be taken for this."""
    (evaluation / "a.txt").write_text(QUESTION)
    assert run(tmp_path, [LEAK, OTHER], "a.txt")[0] == [OTHER]
    (evaluation / "a.txt").write_text(OTHER)
    assert run(tmp_path, [LEAK, OTHER], "a.txt")[0] == [LEAK]


def test_other_evaluation_text_is_another_outcome_of_later_steps(evaluation: Path, tmp_path: Path) -> None:
    """Their passes are made again, though neither their settings nor the text have changed."""
    corpus = files_of_lines(tmp_path / "corpus", [LEAK, OTHER, LEAK])
    chosen = steps(step(evaluation, "a.txt"), "exact_duplicates")
    (evaluation / "a.txt").write_text(QUESTION)
    assert clean(corpus, chosen, tmp_path / "work")[0] == [OTHER]
    (evaluation / "a.txt").write_text(OTHER)
    assert clean(corpus, chosen, tmp_path / "work")[0] == [LEAK]
