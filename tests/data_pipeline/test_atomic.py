"""Files are there whole or not at all, also when there is no room for them."""

import os
import resource
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from data_pipeline.atomic import sha256_of, write_atomically
from data_pipeline.config import BadInput


def test_who_reads_meanwhile_sees_the_old_file_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    write_atomically(path, b"old" * 1000)
    before = sha256_of(path)
    with path.open("rb") as reader:
        write_atomically(path, b"new")
        assert reader.read() == b"old" * 1000
    assert path.read_bytes() == b"new"
    assert sha256_of(path) != before
    assert [one.name for one in path.parent.iterdir()] == ["file"]


def test_no_room_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(BadInput, match=r"file: cannot be written \(File too large\); free space"):
            write_atomically(path, b"x" * (2 << 20))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == b"old"
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    """Threads of a process, as processes of one number in two containers: each draft is its own."""
    path, contents = tmp_path / "file", [bytes([number]) * 300_000 for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        for found in [pool.submit(write_atomically, path, content) for content in contents * 4]:
            found.result()
    assert path.read_bytes() in contents
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_a_draft_that_was_left_can_be_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`prepare` removes what ends in .tmp; a killed writer leaves only that."""
    monkeypatch.setattr(os, "replace", lambda *names: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "file", b"new")
    (left,) = tmp_path.iterdir()
    assert left.match("file.*.tmp")
