"""The work on single pieces: the sample that the tokenizer sees does not depend on how the corpus is cut."""

from pathlib import Path

import pytest

from data_pipeline.prepare.pieces import SampleTask, sample
from data_pipeline.prepare.scanning import ScanTask, first_of, priority, scan
from tests.data_pipeline.corpora import text_config, write_files


@pytest.mark.parametrize("piece_bytes", [1, 3000, 1 << 20])
def test_the_sample_is_the_first_documents_by_hash(piece_bytes: int, tmp_path: Path) -> None:
    corpus = text_config(tmp_path, write_files(tmp_path, count=40)).corpus
    pieces = corpus.pieces(piece_bytes)
    scans = [
        scan(ScanTask(corpus, piece, number, tmp_path / "out", sample_bytes=5000))
        for number, piece in enumerate(pieces)
    ]
    highest = first_of([one for scan in scans for one in scan.sample], 5000)[-1][0]
    found = [text for piece in pieces for text in sample(SampleTask(corpus, piece, highest))]

    chosen, size = set(), 0
    for document in sorted(corpus.documents("train"), key=lambda document: priority(document.id)):
        if size < 5000:
            chosen.add(document.id)
            size += document.num_bytes
    assert 1 < len(chosen) < 30
    assert found == [document.text for document in corpus.documents("train") if document.id in chosen]


def test_scanning_counts_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("b a\n\n a\tb b\n")
    fields = {"kind": "files", "directory": str(tmp_path), "train": ["a.txt"], "document": "line", "held_out": 0}
    corpus = text_config(tmp_path, tmp_path, corpus=fields).corpus
    (piece,) = corpus.pieces(100)
    found = scan(ScanTask(corpus, piece, 0, tmp_path / "out", counts="words"))
    assert found.documents == {"train": 2}
    assert found.num_bytes == 9
    assert found.counts == {"a": 2, "b": 3}
    assert found.report == {"empty": 1}
    assert found.sample == []
