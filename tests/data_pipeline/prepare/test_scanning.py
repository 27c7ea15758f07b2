"""What was scanned is not read again, unless it may have changed; and a run tells how far it is."""

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from data_pipeline.prepare import LocalExecutor, Progress, prepare, status
from data_pipeline.prepare.pieces import EncodeTask, encode, scan_and_encode
from data_pipeline.prepare.scanning import KeptScan, ScanTask, scan
from data_pipeline.sources.folder import SETTLED_NS
from tests.data_pipeline.corpora import text_config, write_files


def settled(directory: Path) -> Path:
    """Once file systems can tell the next change from the last."""
    newest = max(path.stat().st_ctime_ns for path in directory.rglob("*"))
    time.sleep(max(0.0, (newest + SETTLED_NS - time.time_ns()) / 1e9) + 0.01)
    return directory


def other_letters(path: Path) -> None:
    path.write_text(path.read_text().replace("a", "b"))


def other_letters_at_the_same_time(path: Path) -> None:
    before = path.stat()
    other_letters(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize("change", [None, other_letters, other_letters_at_the_same_time])
def test_a_piece_is_read_again_only_if_it_has_changed(change: Callable[[Path], None] | None, tmp_path: Path) -> None:
    files = settled(write_files(tmp_path / "corpus"))
    config = text_config(tmp_path / "out", files)
    task = ScanTask(config.corpus, config.corpus.pieces(1 << 20)[0], 0, tmp_path / "out", sample_bytes=100)
    first = scan(task)
    kept = KeptScan.model_validate_json(task.record_path.read_bytes())
    assert kept.scan == first
    marked = kept.model_copy(update={"scan": first.model_copy(update={"num_bytes": 1})})
    task.record_path.write_text(marked.model_dump_json())
    if change is not None:
        change(files / "file-003.txt")
        settled(files)  # now the stamps alone can tell
    again = scan(task)
    assert again.num_bytes == (1 if change is None else first.num_bytes)
    assert (again.content == first.content) == (change is None)


def test_a_file_that_has_just_changed_is_not_trusted(tmp_path: Path) -> None:
    config = text_config(tmp_path / "out", write_files(tmp_path / "corpus"))
    task = ScanTask(config.corpus, config.corpus.pieces(1 << 20)[0], 0, tmp_path / "out")
    scan(task)
    assert not task.record_path.exists()


def test_one_pass_finds_and_writes_what_two_do(tmp_path: Path) -> None:
    files = settled(write_files(tmp_path / "corpus"))
    config = text_config(tmp_path / "one", files, tokenizer={"kind": "byte"})
    tokenizer = config.tokenizer.build([], {})  # type: ignore[arg-type]  # it counts nothing
    piece = config.corpus.pieces(1 << 20)[0]
    for name in ("one", "two"):
        tokenizer.save(tmp_path / name)
    one = EncodeTask(ScanTask(config.corpus, piece, 0, tmp_path / "one"), None, tokenizer.hash, 4000)
    two = EncodeTask(ScanTask(config.corpus, piece, 0, tmp_path / "two"), scan(one.scan).content, tokenizer.hash, 4000)
    found, encoded = scan_and_encode(one)
    assert (found, encoded) == (scan(two.scan), encode(two))
    written = one.record_path.stat().st_mtime_ns
    assert scan_and_encode(one) == (found, encoded)
    one.scan.record_path.unlink()
    assert scan_and_encode(one) == (found, encoded)
    assert one.record_path.stat().st_mtime_ns == written, "what is there is kept"


class Stopped(Exception):
    pass


def test_status_tells_how_far_it_is(tmp_path: Path) -> None:
    files = settled(write_files(tmp_path / "corpus"))
    config = text_config(tmp_path / "out", files)
    total = len(config.corpus.pieces(config.shard_bytes))
    assert status(tmp_path / "out", config.identity()).state == "not begun"

    def run_until(stage: str, done: int) -> None:
        def stop(event: Progress) -> None:
            if (event.stage, event.done) == (stage, done):
                raise Stopped

        with LocalExecutor(1) as executor, pytest.raises(Stopped):
            prepare(config, executor=executor, report=stop)

    run_until("scan", 2)
    found = status(tmp_path / "out", config.identity())
    assert (found.state, found.pieces, found.scanned, found.tokenizer, found.encoded) == (
        "unfinished",
        total,
        2,
        False,
        0,
    )
    run_until("encode", 3)
    found = status(tmp_path / "out", config.identity())
    assert (found.scanned, found.tokenizer, found.encoded) == (total, True, 3)
    assert f"{total} of {total} pieces scanned, tokenizer there, 3 of {total} encoded" in str(found)
    with LocalExecutor(1) as executor:
        manifest = prepare(config, executor=executor, report=lambda _: None)
    found = status(tmp_path / "out", config.identity())
    assert (found.state, found.scanned, found.encoded) == ("finished", total, total)
    assert found.tokens == sum(split.num_tokens for split in manifest.splits.values())
    assert json.loads(json.dumps(asdict(found)))["documents"] == 24
    assert not list((tmp_path / "out" / "work").glob("scan-*")), "it says when files changed: no part of the result"


def test_progress_counts_what_is_read_of_the_files(tmp_path: Path) -> None:
    files = write_files(tmp_path / "corpus")
    events: list[Progress] = []
    with LocalExecutor(1) as executor:
        prepare(text_config(tmp_path / "out", files), executor=executor, report=events.append)
    size = sum(path.stat().st_size for path in files.iterdir())
    for stage in ("scan", "encode"):
        done = [event.size_done for event in events if event.stage == stage]
        assert done == sorted(done)
        assert done[-1] == size == events[2].size
