"""Files are there whole or not at all, also when there is no room for them."""

import resource
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
