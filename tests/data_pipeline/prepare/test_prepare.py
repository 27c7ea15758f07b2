"""Preparing: what comes out is the corpus; the same bytes however it is run; and what cannot be is refused."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from cluster.ray_session import ray_session
from data_pipeline.config import BadInput, Corrupt, Refused
from data_pipeline.manifest import Manifest
from data_pipeline.prepare import LocalExecutor, Progress, prepare
from data_pipeline.prepare.ray_executor import RayExecutor
from data_pipeline.text import TextConfig
from data_pipeline.verification import verify
from tests.data_pipeline.corpora import content_of, text_config, write_files
from tests.data_pipeline.prepare.test_lost_workers import killed_once


def run(config: TextConfig, workers: int = 1) -> tuple[Manifest, list[Progress]]:
    events: list[Progress] = []
    with LocalExecutor(workers) as executor:
        return prepare(config, executor=executor, report=events.append), events


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_files(tmp_path / "corpus")


def test_shards_hold_every_document_in_order(corpus: Path, tmp_path: Path) -> None:
    config = text_config(tmp_path / "out", corpus)
    manifest, _ = run(config)
    tokenizer = config.load_tokenizer()
    assert set(manifest.splits) == {"train", "valid"}
    for split in ("train", "valid"):
        shards = config.shards(split)
        documents = list(config.corpus.documents(split))
        assert [tokenizer.decode(ids) for ids, _ in shards.documents()] == [d.text + "<eos>" for d in documents]
        assert [num_bytes for _, num_bytes in shards.documents()] == [d.num_bytes for d in documents]
        assert shards.num_documents == len(documents) == manifest.splits[split].num_documents
        assert shards.num_tokens == manifest.splits[split].num_tokens == sum(len(ids) for ids, _ in shards.documents())
        assert shards.num_bytes == manifest.splits[split].num_bytes == sum(d.num_bytes for d in documents)
    assert [one.problem for one in verify(tmp_path / "out") if one.problem] == []


def test_shards_are_plain_arrays_of_bounded_size(corpus: Path, tmp_path: Path) -> None:
    manifest, _ = run(text_config(tmp_path / "out", corpus))
    records = manifest.splits["train"].shards
    assert len(records) > 3
    assert all(record.num_bytes <= 4000 or record.num_documents == 1 for record in records)
    for record in records:
        tokens = np.load(record.path(tmp_path / "out", "tokens"))
        offsets = np.load(record.path(tmp_path / "out", "offsets"))
        assert tokens.dtype == np.uint16
        assert (offsets[0], offsets[-1]) == (0, len(tokens))
        assert (tokens[offsets[1:] - 1] == 0).all(), "<eos> ends each"


def test_two_workers_write_the_same_bytes_as_one(corpus: Path, tmp_path: Path) -> None:
    one, _ = run(text_config(tmp_path / "one", corpus))
    two, _ = run(text_config(tmp_path / "two", corpus), workers=2)
    assert one.fingerprint() == two.fingerprint()
    assert content_of(tmp_path / "one") == content_of(tmp_path / "two")
    assert len(content_of(tmp_path / "one")) > 20


@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.parametrize("tokenizer", [{"kind": "byte"}, {"kind": "char"}, {"kind": "unigram", "vocab_size": 300}])
def test_any_number_of_workers_writes_the_same_bytes(
    tokenizer: dict[str, object], workers: int, corpus: Path, tmp_path: Path
) -> None:
    run(text_config(tmp_path / "one", corpus, tokenizer=tokenizer))
    run(text_config(tmp_path / "more", corpus, tokenizer=tokenizer), workers=workers)
    assert content_of(tmp_path / "one") == content_of(tmp_path / "more")


def test_without_a_ray_its_executor_says_so() -> None:
    """In a process of its own: others may have joined one here."""
    code = "from data_pipeline.prepare.ray_executor import RayExecutor; RayExecutor(2).__enter__()"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "connected to no Ray" in ended.stderr


@pytest.mark.slow
def test_ray_writes_the_same_bytes(corpus: Path, tmp_path: Path) -> None:
    run(text_config(tmp_path / "one", corpus))
    marks = [tmp_path / f"mark-{number}" for number in range(3)]
    with ray_session(2), RayExecutor(2) as executor:
        assert list(executor.map(killed_once, marks)) == ["mark-0", "mark-1", "mark-2"], "a lost task is done again"
        prepare(text_config(tmp_path / "ray", corpus), executor=executor, report=lambda _: None)
        (corpus / "file-003.txt").write_bytes(b"\xff")
        strict = {**text_config(tmp_path / "x", corpus).corpus.model_dump(), "invalid_utf8": "stop"}
        with pytest.raises(BadInput, match=r"file-003\.txt: not UTF-8"):
            prepare(text_config(tmp_path / "x", corpus, corpus=strict), executor=executor, report=lambda _: None)
    assert content_of(tmp_path / "one") == content_of(tmp_path / "ray")


def test_an_error_of_a_worker_process_is_raised_here(corpus: Path, tmp_path: Path) -> None:
    (corpus / "file-003.txt").write_bytes(b"\xff")
    strict = {**text_config(tmp_path / "x", corpus).corpus.model_dump(), "invalid_utf8": "stop"}
    with pytest.raises(BadInput, match=r"file-003\.txt: not UTF-8"):
        run(text_config(tmp_path / "x", corpus, corpus=strict), workers=2)


def test_other_text_or_settings_give_other_fingerprints(corpus: Path, tmp_path: Path) -> None:
    base, _ = run(text_config(tmp_path / "base", corpus))
    more, _ = run(text_config(tmp_path / "more", corpus, tokenizer={"kind": "bpe", "vocab_size": 301}))
    (corpus / "file-005.txt").write_text("changed\n")
    changed, _ = run(text_config(tmp_path / "changed", corpus))
    assert len({base.fingerprint(), more.fingerprint(), changed.fingerprint()}) == 3
    assert base.source == more.source != changed.source


def test_progress_counts_up_to_the_end_of_each_stage(corpus: Path, tmp_path: Path) -> None:
    manifest, events = run(text_config(tmp_path / "out", corpus))
    assert [event.stage for event in events if event.done == event.total] == [
        "list",
        "scan",
        "sample",
        "tokenizer",
        "encode",
        "finished",
    ]
    last = [event for event in events if event.stage == "encode"][-1]
    assert last.count == sum(split.num_documents for split in manifest.splits.values()) == 24
    assert last.num_bytes == sum(path.stat().st_size for path in corpus.iterdir())


def test_a_finished_directory_is_left_alone(corpus: Path, tmp_path: Path) -> None:
    config = text_config(tmp_path / "out", corpus)
    first, _ = run(config)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    second, events = run(config)
    assert second == first
    assert [event.stage for event in events] == ["list", "finished"]
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before


def test_a_corpus_that_moved_is_the_same(corpus: Path, tmp_path: Path) -> None:
    first, _ = run(text_config(tmp_path / "out", corpus))
    corpus.rename(tmp_path / "elsewhere")
    assert run(text_config(tmp_path / "out", tmp_path / "elsewhere"))[0] == first


def test_a_tokenizers_file_may_move_and_go_but_not_change(corpus: Path, tmp_path: Path) -> None:
    for name, size in (("small", 300), ("large", 400)):
        run(text_config(tmp_path / name, corpus, tokenizer={"kind": "bpe", "vocab_size": size, "sample_bytes": 8000}))
    small, large = ({"kind": "file", "path": str(tmp_path / name / "tokenizer.json")} for name in ("small", "large"))

    def by(file: dict[str, str]) -> TextConfig:
        return text_config(tmp_path / "out", corpus, tokenizer=file | {"end_of_document": "<eos>"})

    first, _ = run(by(small))
    moved = small | {"path": str(tmp_path / "moved.json")}
    Path(small["path"]).rename(moved["path"])
    assert run(by(moved))[0] == run(by(small))[0] == first
    assert by(moved).shards().num_tokens > 0
    with pytest.raises(Refused, match=rf"{large['path']}: its hash is [0-9a-f]{{64}}, but .* was prepared with"):
        run(by(large))


def test_other_settings_for_the_same_directory_are_refused_by_name(corpus: Path, tmp_path: Path) -> None:
    run(text_config(tmp_path / "out", corpus))
    before = content_of(tmp_path / "out")
    other = text_config(tmp_path / "out", corpus, tokenizer={"kind": "bpe", "vocab_size": 400, "sample_bytes": 8000})
    message = r"prepared with other settings \(data\.tokenizer\.vocab_size: 300 -> 400\).*another data\.directory"
    with pytest.raises(Refused, match=message):
        run(other)
    with pytest.raises(Refused, match=message):
        other.shards()
    with pytest.raises(Refused, match=r"tokenizer\.kind: bpe -> byte"):
        run(text_config(tmp_path / "out", corpus, tokenizer={"kind": "byte"}))
    assert content_of(tmp_path / "out") == before


def test_an_unfinished_directory_is_not_continued_with_other_settings(corpus: Path, tmp_path: Path) -> None:
    run(text_config(tmp_path / "out", corpus))
    (tmp_path / "out" / "manifest.json").unlink()
    with pytest.raises(Refused, match=r"data\.shard_bytes: 4000 -> 5000"):
        run(text_config(tmp_path / "out", corpus, shard_bytes=5000))


def test_a_changed_corpus_is_refused_once_finished(corpus: Path, tmp_path: Path) -> None:
    run(text_config(tmp_path / "out", corpus))
    (corpus / "another.txt").write_text("more\n")
    with pytest.raises(Refused, match="was prepared from other files"):
        run(text_config(tmp_path / "out", corpus))


def test_the_files_that_have_changed_are_named(corpus: Path, tmp_path: Path) -> None:
    config = text_config(tmp_path / "out", corpus)
    run(config)
    (corpus / "file-003.txt").unlink()
    (corpus / "file-005.txt").write_text("more" * 100)
    (corpus / "new.txt").write_text("words")
    changed = "file-003.txt is gone; file-005.txt has another size; new.txt is new"
    with pytest.raises(Refused, match=rf"was prepared from other files \({changed}\); restore them"):
        run(config)
    for number in range(9):
        (corpus / f"more-{number}.txt").write_text("words")
    with pytest.raises(Refused, match=r"more-0\.txt is new; more-1\.txt is new; and 8 more\)"):
        run(config)


def test_of_many_other_settings_the_first_are_named(corpus: Path, tmp_path: Path) -> None:
    config = text_config(tmp_path / "out", corpus)
    run(config)
    fields = {**config.corpus.model_dump(), "train": ["*.txt"] * 99, "held_out": 0.1, "max_document_bytes": 99999}
    other = {"corpus": {**fields, "document": "line"}, "shard_bytes": 5000, "tokenizer": {"kind": "byte"}}
    with pytest.raises(Refused) as refused:
        run(text_config(tmp_path / "out", corpus, **other))
    assert (
        "(data.tokenizer.kind: bpe -> byte; data.corpus.document: file -> line; data.corpus.held_out: 0.2 -> 0.1; "
        in (str(refused.value))
    )
    assert "; and 2 more); restore them" in str(refused.value)
    assert "vocab_size" not in str(refused.value), "of a tokenizer of another kind nothing else is told"
    with pytest.raises(Refused, match=r"train: \['\*\.txt'\] -> \['\*\.txt', .{60,70}\.\.\.\); restore"):
        run(text_config(tmp_path / "out", corpus, corpus={**config.corpus.model_dump(), "train": ["*.txt"] * 99}))


def test_a_corpus_that_changes_underway_is_noticed(corpus: Path, tmp_path: Path) -> None:
    def change(event: Progress) -> None:
        if event.stage == "scan" and event.done == event.total:
            path = corpus / "file-007.txt"
            path.write_text(path.read_text().replace("cat", "dog", 1))

    with LocalExecutor(1) as executor, pytest.raises(BadInput, match="changed while it was prepared"):
        prepare(text_config(tmp_path / "out", corpus), executor=executor, report=change)
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_pieces_of_other_text_are_made_again(corpus: Path, tmp_path: Path) -> None:
    config = text_config(tmp_path / "out", corpus, tokenizer={"kind": "byte"})
    run(config)
    (tmp_path / "out" / "manifest.json").unlink()
    path = corpus / "file-007.txt"
    path.write_text(path.read_text().replace("cat", "dog"))
    run(config)
    run(text_config(tmp_path / "fresh", corpus, tokenizer={"kind": "byte"}))
    assert content_of(tmp_path / "out") == content_of(tmp_path / "fresh")


@pytest.mark.parametrize("tokenizer", [{"kind": "byte"}, {"kind": "bpe", "vocab_size": 300}])
def test_a_repair_from_other_text_is_refused(tokenizer: dict[str, object], corpus: Path, tmp_path: Path) -> None:
    config = text_config(tmp_path / "out", corpus, tokenizer=tokenizer)
    manifest, _ = run(config)
    manifest.splits["train"].shards[1].path(tmp_path / "out", "tokens").unlink()
    before = content_of(tmp_path / "out")
    path = corpus / "file-007.txt"
    text = path.read_text()
    path.write_text(text.replace("cat", "dog"))
    with pytest.raises(Refused, match=r"cannot be made anew, since the corpus's text is no longer"):
        run(config)
    assert content_of(tmp_path / "out") == before
    path.write_text(text)
    assert run(config)[0] == manifest


def test_a_table_of_other_size_is_refused_once_finished(tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    fields = {"kind": "parquet", "directory": str(tmp_path / "corpus"), "train": ["*"], "held_out": 0}
    config = text_config(tmp_path / "out", tmp_path, corpus=fields, tokenizer={"kind": "byte"})
    for count in (5, 6):
        table = pa.table({"text": [f"row {number}" for number in range(count)]})
        parquet.write_table(table, tmp_path / "corpus" / "a.parquet")
        if count == 5:
            run(config)
    with pytest.raises(Refused, match="was prepared from other files"):
        run(config)


@pytest.mark.parametrize("kind", ["tokens", "offsets", "bytes"])
@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_a_damaged_directory_is_noticed_and_repaired(kind: str, damage: str, corpus: Path, tmp_path: Path) -> None:
    config = text_config(tmp_path / "out", corpus)
    manifest, _ = run(config)
    before = content_of(tmp_path / "out")
    path = manifest.splits["train"].shards[1].path(tmp_path / "out", kind)
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(Corrupt, match=path.name):
        config.shards()
    run(config)
    assert content_of(tmp_path / "out") == before


def test_a_flipped_bit_is_found_by_verify_and_repaired_when_unfinished(corpus: Path, tmp_path: Path) -> None:
    config = text_config(tmp_path / "out", corpus)
    manifest, _ = run(config)
    before = content_of(tmp_path / "out")
    path = manifest.splits["train"].shards[2].path(tmp_path / "out", "tokens")
    data = bytearray(path.read_bytes())
    data[-3] ^= 4
    path.write_bytes(data)
    assert [one.path for one in verify(tmp_path / "out") if one.problem] == [path]
    (tmp_path / "out" / "manifest.json").unlink()
    run(config)
    assert content_of(tmp_path / "out") == before


def test_leftovers_of_other_runs_are_swept(corpus: Path, tmp_path: Path) -> None:
    config = text_config(tmp_path / "out", corpus)
    run(config)
    before = content_of(tmp_path / "out")
    (tmp_path / "out" / "manifest.json").unlink()
    for name in (
        "shards/train-00099-000.tokens.npy",
        "shards/x.tokens.npy.123.tmp",
        "work/y.tmp",
        "manifest.json.1.tmp",
    ):
        (tmp_path / "out" / name).write_bytes(b"left")
    (tmp_path / "out" / "notes.md").write_bytes(b"mine")
    run(config)
    assert content_of(tmp_path / "out").keys() - before.keys() == {"notes.md"}


def test_what_was_left_out_is_in_the_report(corpus: Path, tmp_path: Path) -> None:
    (corpus / "empty.txt").write_bytes(b"")
    (corpus / "space.txt").write_bytes(b" \n\n")
    (corpus / "wrong.txt").write_bytes(b"\xc3(")
    manifest, _ = run(text_config(tmp_path / "out", corpus))
    assert manifest.report == {"empty": 2, "invalid_utf8": 1}
    assert sum(split.num_documents for split in manifest.splits.values()) == 24


def test_a_corpus_of_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    for number in range(12):
        (tmp_path / "corpus" / f"{number}.txt").write_bytes(b"\n" * number)
    with pytest.raises(BadInput, match=r"no document for the split train.*left out: 12 empty, the first 0\.txt"):
        run(text_config(tmp_path / "out", tmp_path / "corpus"))


def test_a_split_that_stays_empty_is_refused(tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "a.txt").write_text("only one line\n")
    fields = {"kind": "files", "directory": str(tmp_path / "corpus"), "train": ["a.txt"], "document": "line"}
    with pytest.raises(BadInput, match=r"no document for the split (valid|train) \(1 for others"):
        run(text_config(tmp_path / "out", tmp_path, corpus=fields))


def test_a_directory_that_cannot_be_written_is_refused(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(BadInput, match=r"lock: cannot be written \(Not a directory\).*another directory"):
        run(text_config(tmp_path / "file" / "out", corpus))


def test_a_large_document_has_a_shard_of_its_own(tmp_path: Path) -> None:
    lines = ["short one", "x y " * 3000, "short two", "z"]
    (tmp_path / "a.txt").write_text("\n".join(lines) + "\n")
    fields = {"kind": "files", "directory": str(tmp_path), "train": ["a.txt"], "document": "line", "held_out": 0}
    manifest, _ = run(text_config(tmp_path / "out", tmp_path, corpus=fields, tokenizer={"kind": "byte"}))
    sizes = [(shard.num_documents, shard.num_bytes) for shard in manifest.splits["train"].shards]
    assert sizes == [(1, 9), (1, 12000), (2, 10)]


@pytest.mark.parametrize("workers", [0, -1])
def test_no_workers_is_refused(workers: int) -> None:
    with pytest.raises(BadInput, match=f"workers {workers}"):
        LocalExecutor(workers)


def test_the_manifest_names_no_place_and_no_time(corpus: Path, tmp_path: Path) -> None:
    run(text_config(tmp_path / "out", corpus))
    text = (tmp_path / "out" / "manifest.json").read_text()
    assert str(tmp_path) not in text
    assert json.loads(text)["config"]["corpus"]["train"] == ["*.txt"]
