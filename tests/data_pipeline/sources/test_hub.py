"""Data sets by the `datasets` library, here from a folder: the same code reads the hub's."""

import json
from pathlib import Path

import datasets
import pytest

from data_pipeline.config import BadInput
from data_pipeline.sources.document import Report
from data_pipeline.sources.hub import HubConfig


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "set"
    folder.mkdir()
    for split, count in (("train", 200), ("test", 7)):
        rows = [{"body": f"{split} {number}" if number else "", "label": number} for number in range(count)]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_rows_are_documents_in_order_whatever_the_pieces(folder: Path) -> None:
    corpus = HubConfig(kind="hub", name=str(folder), text_field="body", splits={"train": "train", "test": "test"})
    report, found = Report(), {"train": [], "valid": [], "test": []}
    pieces = corpus.pieces(500)
    assert len(pieces) > 3
    for piece in pieces:
        for split, document in corpus.read(piece, report):
            found[split].append(document.text)
    both = sorted(found["train"] + found["valid"], key=lambda text: int(text.split()[1]))
    assert both == [f"train {number}" for number in range(1, 200)]
    assert 5 < len(found["valid"]) < 40
    assert found["test"] == [f"test {number}" for number in range(1, 7)]
    assert report.counts == {"empty": 2}
    assert [document.text for document in corpus.documents("valid")] == found["valid"]


def test_what_is_not_there_is_refused_with_the_remedy(folder: Path) -> None:
    with pytest.raises(BadInput, match=r"corpus\.text_field text: .*has the columns body, label"):
        HubConfig(kind="hub", name=str(folder)).pieces(1000)
    with pytest.raises(BadInput, match=r"split validation.*cannot be loaded .*use corpus\.kind files"):
        HubConfig(kind="hub", name=str(folder), text_field="body", splits={"train": "validation"}).pieces(1000)
    with pytest.raises(BadInput, match=r"corpus\.splits: has no train"):
        HubConfig(kind="hub", name=str(folder), splits={"valid": "test"}).pieces(1000)
    with pytest.raises(BadInput, match=r"nowhere.*cannot be loaded"):
        HubConfig(kind="hub", name=str(folder / "nowhere")).pieces(1000)
