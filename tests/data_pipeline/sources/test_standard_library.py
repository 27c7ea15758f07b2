"""The standard library as a corpus."""

import os
import sysconfig
from pathlib import Path

from data_pipeline.sources.document import Report
from data_pipeline.sources.standard_library import StandardLibraryConfig

CORPUS = StandardLibraryConfig(kind="standard_library")


def test_every_file_of_the_library_is_a_document_or_counted() -> None:
    base = Path(sysconfig.get_path("stdlib"))
    expected = {path.relative_to(base).as_posix() for path in base.rglob("*.py")}
    expected = {name for name in expected if not {"site-packages", "dist-packages"} & set(name.split("/"))}
    report, found, splits = Report(), {}, []
    for piece in CORPUS.pieces(1 << 22):
        for split, document in CORPUS.read(piece, report):
            found[document.id] = document
            splits.append(split)
    assert list(found) == sorted(found)
    assert found.keys() <= expected
    assert len(found) + report.counts.total() == len(expected)
    assert set(report.counts) <= {"empty", "invalid_utf8"}
    assert 0.06 < splits.count("valid") / len(splits) < 0.14
    for name in ("os.py", "json/decoder.py"):
        assert found[name].text.encode() == (base / name).read_bytes()
        assert found[name].num_bytes == os.path.getsize(base / name)


def test_splits_do_not_depend_on_the_pieces() -> None:
    small = [
        document.id
        for piece in CORPUS.pieces(1 << 20)
        for split, document in CORPUS.read(piece, Report())
        if split == "valid"
    ]
    assert small == [document.id for document in CORPUS.documents("valid")]
