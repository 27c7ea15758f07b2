"""A prepared directory within the corpus's folder: refused where a glob would see its files, else no matter."""

import re
from pathlib import Path

import pytest

from data_pipeline.config import BadInput
from data_pipeline.prepare import LocalExecutor, prepare
from data_pipeline.sources.own_files import OF_MEDIA, OF_TEXT
from data_pipeline.text import TextConfig
from tests.data_pipeline.corpora import text_config, write_files
from tests.data_pipeline.media import media_files
from tests.data_pipeline.media.media_files import png, random_images, write


def prepared(config: TextConfig) -> object:
    with LocalExecutor(1) as executor:
        return prepare(config, executor=executor, report=lambda _: None)


@pytest.mark.parametrize("field", ["train", "valid"])
@pytest.mark.parametrize(("place", "pattern"), [("self", "**/*"), ("", "*.json"), ("a/b", "a/*/shards/*.npy")])
def test_a_directory_where_the_corpus_would_see_its_files_is_refused(
    place: str, pattern: str, field: str, tmp_path: Path
) -> None:
    files = write_files(tmp_path / "corpus")
    corpus = {"kind": "files", "directory": str(files), "train": ["*.txt"], "document": "line"} | {field: [pattern]}
    for name in ("self/x", "x.json", "a/b/shards/x.npy"):
        (files / name).parent.mkdir(parents=True, exist_ok=True)
        (files / name).write_text("text\n")
    message = rf"data\.directory .*within corpus\.directory.*corpus\.{field} .*such as .*choose another data\.directory"
    with pytest.raises(BadInput, match=message):
        prepared(text_config(files / place, files, corpus=corpus))
    assert not (files / place / "work").exists()


def test_all_that_is_written_is_known(tmp_path: Path) -> None:
    files = write_files(tmp_path / "corpus")
    (files / "bad.txt").write_bytes(b"\xff")
    out = tmp_path / "out"
    prepared(
        text_config(
            out, files, corpus={"kind": "files", "directory": str(files), "train": ["*.txt"], "document": "file"}
        )
    )
    found = {re.sub(r"\d", "0", path.relative_to(out).as_posix()) for path in out.rglob("*") if path.is_file()}
    assert found <= set(OF_TEXT)
    assert {"left_out.jsonl", "shards/valid-00000-000.bytes.npy"} <= found
    images = write(tmp_path / "images", {f"{name}.png": png(random_images(1, 4, 3)[0]) for name in "ab"})
    media_files.prepared(
        media_files.config("images", tmp_path / "tars", images, ["*"], recolour=True, corpus_valid="b.*")
    )
    tars = tmp_path / "tars"
    found = {re.sub(r"\d", "0", path.relative_to(tars).as_posix()) for path in tars.rglob("*") if path.is_file()}
    assert found <= set(OF_MEDIA)
    assert "media.json" in found


def test_a_directory_within_the_corpus_that_no_glob_sees_is_taken(tmp_path: Path) -> None:
    files = write_files(tmp_path / "corpus")
    corpus = {"kind": "files", "directory": str(files), "train": ["**/*.txt"], "document": "line"}
    config = text_config(files / "out", files, corpus=corpus)
    assert prepared(config) == prepared(config)
