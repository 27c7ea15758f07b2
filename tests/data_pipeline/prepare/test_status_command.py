"""`launch.py prepare --status` on the command line."""

import json
from pathlib import Path

import pytest
import yaml

import launch
from cluster.data_verbs.status import show_status
from data_pipeline.data import DataConfig
from data_pipeline.prepare import LocalExecutor, prepare
from pretrain.config import recipe_path
from tests.data_pipeline.corpora import text_config, write_files
from tests.data_pipeline.media.media_files import config as media_config
from tests.data_pipeline.media.media_files import png, prepared, random_images, write


def test_it_starts_nothing_and_tells_how_far_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = text_config(tmp_path / "out", write_files(tmp_path / "corpus"))
    recipe = yaml.safe_load(recipe_path("quickstart").read_text()) | {"data": config.model_dump(mode="json")}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))

    def told(*options: str) -> str:
        launch.prepare(str(tmp_path / "recipe.yaml"), status=True, as_json="--json" in options)
        return capsys.readouterr().out

    assert told() == f"{tmp_path / 'out'}: not begun\n"
    assert not (tmp_path / "out").exists()
    with LocalExecutor(1) as executor:
        manifest = prepare(config, executor=executor, report=lambda _: None)
    (found,) = json.loads(told("--json"))
    assert (found["state"], found["encoded"]) == ("finished", found["pieces"])
    assert found["tokens"] == sum(split.num_tokens for split in manifest.splits.values())


def test_a_directory_of_other_settings_is_told_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, corpus = tmp_path / "out", write_files(tmp_path / "corpus")
    config = text_config(out, corpus)
    inner = {"kind": "jsonl", "directory": str(corpus), "train": ["*.jsonl"]}
    other = text_config(out, corpus, corpus=inner, shard_bytes=5000)

    def told(data: DataConfig) -> str:
        show_status(data, as_json=False)
        return capsys.readouterr().out.removesuffix("\n")

    with LocalExecutor(1) as executor:
        prepare(config, executor=executor, report=lambda _: None)
    differs = f"{out}: finished, of other settings: data.corpus.kind: files -> jsonl; data.shard_bytes: 4000 -> 5000"
    assert told(config).startswith(f"{out}: finished, 24 documents")
    assert told(other) == differs
    show_status(other, as_json=True)
    (found,) = json.loads(capsys.readouterr().out)
    assert "data.shard_bytes: 4000 -> 5000" in found["other_settings"]
    (out / "manifest.json").unlink()
    assert told(other) == differs.replace("finished", "unfinished")
    assert ": unfinished, " in told(config)
    assert "settings" not in told(config)


@pytest.mark.parametrize("finished", [True, False])
def test_media_and_text_are_told_apart(finished: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = write(tmp_path / "corpus", {"a.png": png(random_images(1, 4, 3)[0])})
    images = media_config("images", tmp_path / "images", corpus, ["*.png"])
    text = text_config(tmp_path / "text", write_files(tmp_path / "words"))
    prepared(images)
    with LocalExecutor(1) as executor:
        prepare(text, executor=executor, report=lambda _: None)
    if not finished:
        (tmp_path / "images" / "media.json").unlink()
        (tmp_path / "text" / "manifest.json").unlink()
    state = "finished" if finished else "unfinished"
    for data, place, kinds in ((text, "images", "images -> text"), (images, "text", "text -> images")):
        show_status(data.model_copy(update={"directory": str(tmp_path / place)}), as_json=False)
        expected = f"{tmp_path / place}: {state}, of other settings: data.kind: {kinds}\n"
        assert capsys.readouterr().out == expected
