"""What people are told of a directory of which something is left out."""

from pathlib import Path

import pytest

from data_pipeline.summary import summarize
from data_pipeline.text import TextConfig
from tests.data_pipeline.corpora import prepared_text


@pytest.fixture
def config(tmp_path: Path) -> TextConfig:
    return prepared_text(tmp_path)


def test_what_is_read_is_counted_with_what_is_left_out_beside_it(config: TextConfig) -> None:
    directory, record = Path(config.directory), config.manifest().splits["train"]
    whole = summarize(directory, damaged="skip")
    record.shards[1].path(directory, "tokens").unlink()
    summary, skipping = summarize(directory, damaged="skip"), config.model_copy(update={"damaged": "skip"})
    (train, valid), shards = summary.splits, skipping.shards()
    assert (train.num_shards, train.shards_left_out) == (len(record.shards) - 1, 1)
    assert (train.num_documents, train.num_tokens, train.num_bytes) == (
        shards.num_documents,
        shards.num_tokens,
        shards.num_bytes,
    )
    assert (train.documents_left_out, train.tokens_left_out) == (
        record.shards[1].num_documents,
        record.shards[1].num_tokens,
    )
    assert valid == whole.splits[1]
    assert whole.fingerprint == whole.fingerprint_of_all == summary.fingerprint_of_all
    assert summary.fingerprint == skipping.fingerprint() != whole.fingerprint
    assert f"fingerprint {summary.fingerprint}, of what is read" in summary.lines()
    assert f"fingerprint of all that was prepared {whole.fingerprint}" in summary.lines()
    assert f"{len(record.shards) - 1} shards; besides, left out: {train.documents_left_out} document" in str(train)
    assert summary.lines()[0] != whole.lines()[0] == f"fingerprint {whole.fingerprint}"


def test_another_split_with_a_hole_is_other_data_too(config: TextConfig) -> None:
    skipping = config.model_copy(update={"damaged": "skip"})
    whole = skipping.fingerprint()
    assert whole == config.fingerprint()
    chosen = config.manifest().splits["valid"].shards
    assert len(chosen) > 1
    chosen[0].path(Path(config.directory), "bytes").unlink()
    assert skipping.fingerprint() != whole
