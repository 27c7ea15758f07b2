"""A run's GPT, exported for transformers and scored there, against the run itself."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from cluster.huggingface_export import export_huggingface
from cluster.sampling import keep_tokenizer
from data_pipeline.config import BadInput
from evals.scoring.encoding import Request, encode_requests
from evals.scoring.item import batches_of, group_items
from evals.targets import Target
from tests.evals.runs import finished_run, prepared_text

pytest.importorskip("transformers", reason="the extra segue[evals] is not installed")

PAIRS = [
    Request("memory carries on", " and on"),
    Request("memory carries on", " segue"),
    Request("memory carries on ", "é segue memory"),
    Request("", "carries on"),
    Request("segue " * 40, "memory"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("export")
    text = prepared_text(place).replace("{kind: byte}", "{kind: bpe, vocab_size: 270}").replace("/shards", "/bpe")
    prepare_again(text)
    experiment = finished_run(place / "run", "tiny_gpt", text, "model.vocab_size=270", "model.initial_std=0.3", steps=2)
    keep_tokenizer(experiment, place / "run")
    return place / "run"


def prepare_again(text: str) -> None:
    from data_pipeline.prepare import LocalExecutor, prepare
    from data_pipeline.text import TextConfig
    from pretrain import config
    from pretrain.experiment import Experiment

    data = config.load(Experiment, config.recipe_path("tiny_transformer_xl"), [text]).data
    assert isinstance(data, TextConfig)
    prepare(data, executor=LocalExecutor(1), report=lambda progress: None)


def scores(target: str) -> list[list[float]]:
    model, reader = Target(target).open()
    encoded = encode_requests(PAIRS, reader.tokenizer, start=reader.start, max_length=reader.max_length)
    groups, places = group_items([one.item for one in encoded], [0] * len(encoded))
    found: dict[int, list[float]] = {}
    for batch in batches_of(groups, 3):
        for group, own in zip(batch, model.score([groups[place] for place in batch]), strict=True):
            found |= {
                place: [*one.nats, float(one.greedy.all())] for place, one in zip(places[group], own, strict=True)
            }
    return [found[place] for place in range(len(PAIRS))]


def test_transformers_gives_the_scores_of_the_run(run: Path) -> None:
    exported = run.parent / "exported"
    export_huggingface(run, exported, None, "float32")
    assert sorted(path.name for path in exported.iterdir()) == [
        "README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"
    ]  # fmt: skip
    for ours, theirs in zip(scores(str(run)), scores(f"hf:{exported}"), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    card = (exported / "README.md").read_text()
    assert "library_name: transformers" in card
    assert "kind: gpt" in card


def test_what_cannot_be_exported_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is there already"):
        export_huggingface(run, tmp_path, None, "float32")
    with pytest.raises(BadInput, match="there is no directory"):
        export_huggingface(run, tmp_path / "no" / "where", None, "float32")
    finished_run(tmp_path / "rbm", "tiny_rbm")
    with pytest.raises(BadInput, match="only models of kind gpt can be exported so, not rbm"):
        export_huggingface(tmp_path / "rbm", tmp_path / "out", None, "float32")
    finished_run(tmp_path / "markov", "tiny_gpt")
    with pytest.raises(BadInput, match="has no tokenizer"):
        export_huggingface(tmp_path / "markov", tmp_path / "out", None, "float32")
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob("out.partial*"))


def test_targets_that_cannot_be_opened(run: Path, tmp_path: Path) -> None:
    for target, message in (
        (Target("hf:" + str(tmp_path)), "no causal language model of transformers"),
        (Target(str(tmp_path / "none")), "there is no such directory; give a run's, or hf:NAME"),
        (Target(str(run), memory_length=4), "model.kind gpt has no such setting"),
        (Target(str(run), segment_length=4), "segment_length: model.kind gpt has no memory; use stride"),
        (Target("hf:gpt2", memory_length=3), "memory_length is of Segue's runs"),
    ):
        with pytest.raises(BadInput) as refused:
            target.open()
        assert message in str(refused.value)


def test_a_dtype_stands_in_config_and_weights(run: Path) -> None:
    from safetensors.torch import load_file

    exported = run.parent / "half"
    export_huggingface(run, exported, None, "bfloat16")
    assert json.loads((exported / "config.json").read_text())["dtype"] == "bfloat16"
    assert {tensor.dtype for tensor in load_file(exported / "model.safetensors").values()} == {torch.bfloat16}
