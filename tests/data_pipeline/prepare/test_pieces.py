"""The work on single pieces: the sample that the tokenizer sees does not depend on how the corpus is cut."""

from pathlib import Path

import numpy as np
import pytest

from data_pipeline.prepare.job import Findings
from data_pipeline.prepare.pieces import SampleTask, sample
from data_pipeline.prepare.scanning import Scan, Scanner, ScanTask, first_of, priority, scan
from data_pipeline.sources.document import Document, Piece
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
    cut = [text for piece in pieces for text in sample(SampleTask(corpus, piece, highest, 100))]
    assert cut == [text[:100] for text in found] != found


@pytest.mark.parametrize("wanted", [0, 50, 300, 5000])
def test_findings_keep_what_is_first_of_all(wanted: int) -> None:
    random = np.random.default_rng(wanted)
    pieces = [[(float(one), int(random.integers(1, 9))) for one in random.random(20)] for _ in range(30)]
    findings = Findings(wanted)
    for piece in pieces:
        found = first_of(piece, wanted)
        findings.add(Scan(content="", documents={"train": 20}, num_bytes=1, report={}, sample=found))
    assert findings.sample == first_of([one for piece in pieces for one in piece], wanted)


def test_a_scanner_of_many_short_documents_keeps_what_is_first(tmp_path: Path) -> None:
    corpus = text_config(tmp_path, tmp_path).corpus
    scanner = Scanner(ScanTask(corpus, Piece("train", ()), 0, tmp_path, sample_bytes=100))
    documents = [Document(str(number), "x" * (1 + number % 9), 1 + number % 9) for number in range(2000)]
    for document in documents:
        scanner.add("train", document)
        assert len(scanner._sample) <= 500
    expected = first_of([(priority(one.id), one.num_bytes) for one in documents], 100)
    assert scanner.finish().sample == expected


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
