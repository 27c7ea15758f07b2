"""`launch.py prepare --status` on the command line."""

import json
from pathlib import Path

import pytest
import yaml

import launch
from data_pipeline.prepare import LocalExecutor, prepare
from pretrain.config import recipe_path
from tests.data_pipeline.corpora import text_config, write_files


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
