"""What a writer is given is in its shards, whatever the parts are like."""

from pathlib import Path

import numpy as np
import pytest

from data_pipeline.config import BadInput
from data_pipeline.manifest import ShardRecord
from data_pipeline.prepare.shard_writer import MOST_ARRAYS, ShardWriter

NONE = np.array([], dtype="<u2")


def tokens(count: int) -> np.ndarray:
    return np.arange(count, dtype="<u2")


def lengths_of(directory: Path, record: ShardRecord) -> list[int]:
    return np.diff(np.load(record.path(directory, "offsets"))).tolist()


def test_many_short_documents_are_all_there(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, "train-00000", 1 << 20)
    lengths = [1 + number % 3 for number in range(2 * MOST_ARRAYS + 5)]
    for length in lengths:
        writer.add(tokens(length), length)
    (record,) = writer.finish()
    assert lengths_of(tmp_path, record) == lengths
    expected = np.concatenate([tokens(length) for length in lengths])
    assert np.array_equal(np.load(record.path(tmp_path, "tokens")), expected)
    assert np.load(record.path(tmp_path, "bytes")).tolist() == lengths


def test_parts_without_tokens_go_with_the_next(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, "train-00000", 10)
    writer.add(tokens(2), 8)
    writer.add(NONE, 8)  # the beginning of a document
    writer.add(NONE, 8, continues=True)
    writer.add(tokens(3), 8, continues=True)
    writer.add(NONE, 8, continues=True)
    writer.add(tokens(4), 8, continues=True)
    records = writer.finish()
    assert [lengths_of(tmp_path, record) for record in records] == [[2], [3], [4]]
    assert [(record.num_bytes, record.continues) for record in records] == [(8, False), (24, False), (16, True)]


@pytest.mark.parametrize(("num_bytes", "continues"), [(8, True), (8, False), (0, False)])
def test_a_piece_that_ends_in_parts_without_tokens_is_refused(num_bytes: int, continues: bool, tmp_path: Path) -> None:
    """Its shards could not tell what the next piece's go on with."""
    writer = ShardWriter(tmp_path, "train-00003", 10)
    writer.add(tokens(2), 8)
    writer.add(NONE, num_bytes, continues=continues)
    with pytest.raises(BadInput, match=r"train-00003 has \d bytes in a row without a token .*data\.shard_bytes higher"):
        writer.finish()
