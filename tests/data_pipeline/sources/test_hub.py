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


def rows_of(corpus: HubConfig, piece_bytes: int) -> list[tuple[str, str]]:
    pieces = corpus.pieces(piece_bytes)
    return [(document.id, document.text) for piece in pieces for _, document in corpus.read(piece, Report())]


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    folder = tmp_path / "sharded"
    folder.mkdir()
    for shard in range(4):
        rows = [{"text": f"shard {shard} row {row}"} for row in range(30)]
        (folder / f"train-{shard}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_a_streamed_set_is_read_by_its_shards(sharded: Path) -> None:
    corpus = HubConfig(kind="hub", name=str(sharded), streaming=True)
    pieces = corpus.pieces(1000)
    assert [piece.spans[0].start for piece in pieces] == [0, 1, 2, 3]
    expected = [(f"train:{shard}:{row}", f"shard {shard} row {row}") for shard in range(4) for row in range(30)]
    assert rows_of(corpus, 1000) == expected
    alone = [(one.id, one.source, one.start) for _, one in corpus.read(pieces[2], Report())]
    assert alone == [(f"train:2:{row}", "train:2", row) for row in range(30)]
    with pytest.raises(BadInput, match=r"corpus\.text_field body: .*has the columns text"):
        rows_of(HubConfig(kind="hub", name=str(sharded), streaming=True, text_field="body"), 1000)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("several", [False, True])
def test_a_folder_that_save_to_disk_wrote(several: bool, streaming: bool, tmp_path: Path) -> None:
    table = datasets.Dataset.from_dict({"text": [f"text {row}" for row in range(20)] + [None, ""]})
    whole = datasets.DatasetDict({"train": table, "test": table.select(range(3))}) if several else table
    whole.save_to_disk(str(tmp_path / "saved"))
    splits = {"train": "train", "test": "test"} if several else {"train": "train"}
    corpus = HubConfig(kind="hub", name=str(tmp_path / "saved"), splits=splits, streaming=streaming, held_out=0.0)
    found = [text for _, text in rows_of(corpus, 100)]
    assert found == [f"text {row}" for row in [*range(20), *(range(3) if several else [])]]
    other = corpus.model_copy(update={"splits": {"train": "validation"}})
    if several:
        with pytest.raises(BadInput, match="split validation"):
            other.pieces(1000)
    else:
        assert len(rows_of(other, 100)) == 20, "a table without a split goes by any name"


def test_a_column_without_text_is_refused(tmp_path: Path) -> None:
    datasets.Dataset.from_dict({"text": [1, 2]}).save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(BadInput, match=r"corpus\.text_field text: train:0 is int, not text"):
        rows_of(HubConfig(kind="hub", name=str(tmp_path / "saved")), 1000)


def test_streaming_is_no_part_of_the_record_unless_asked_for() -> None:
    assert "streaming" not in HubConfig(kind="hub", name="x").model_dump()
